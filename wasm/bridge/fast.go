package bridge

// ReadResponse reads size bytes of the response body from start on, in a body
// callback, into buf, which grows if it must. The SDK's own call allocates anew
// for each chunk. It returns fewer bytes if the host has fewer.
func ReadResponse(buf []byte, start, size int) ([]byte, error) { return readResponse(buf, start, size) }

// State is a filter state that is set often. The SDK's own call builds its path
// anew each time.
type State string

// Set sets the filter state.
func (s State) Set(value []byte) error { return setState(string(s), value) }
