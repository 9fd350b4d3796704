//go:build race

package plan

// The race detector drops what pools keep at random.
func init() { pooled = false }
