package extproc

import (
	"strings"
	"testing"
	"time"
)

func TestMarkedIDs(t *testing.T) {
	t.Parallel()
	id := MarkedIDs([4]byte{0xde, 0xad, 0xbe, 0xef})
	now := time.UnixMilli(0x0123456789ab)
	seen := map[string]bool{}
	for range 4096 {
		s := id(now)
		if len(s) != 32 || !strings.HasPrefix(s, "0123456789ab7") || !strings.HasSuffix(s, "deadbeef") || !strings.Contains("89ab", s[16:17]) {
			t.Fatalf("%s is no UUID of version 7 with the mark", s)
		}
		// What tells the ids of one millisecond apart does so whatever is random.
		if seen[s[13:16]] {
			t.Fatalf("%s has the count of an earlier one", s)
		}
		seen[s[13:16]] = true
	}
}
