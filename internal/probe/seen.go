package probe

import (
	"sync"
	"time"
)

// maxSeen bounds what is remembered; past it no token is taken, which says so to
// the doctor. Only signed tokens come here, so nobody else can fill it.
const maxSeen = 1 << 14

// Seen remembers the nonces that were used. Its zero value is ready for use; it is
// safe for concurrent use.
type Seen struct {
	mu    sync.Mutex
	until map[Nonce]time.Time // when the token cannot be read any more
	swept time.Time
}

// Take tells whether the token was not used before, and uses it.
func (s *Seen) Take(t Token, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, used := s.until[t.Nonce]; used {
		return false
	}
	if s.until == nil {
		s.until = make(map[Nonce]time.Time)
	}
	if now.Sub(s.swept) > Validity {
		s.swept = now
		for n, until := range s.until {
			if now.After(until) {
				delete(s.until, n)
			}
		}
	}
	if len(s.until) >= maxSeen {
		return false
	}
	s.until[t.Nonce] = t.At.Add(Validity)
	return true
}
