package openai

import (
	"testing"
	"time"
)

func TestRest(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		status  string
		headers map[string]string
		want    time.Duration
	}{
		{"429", nil, 0},
		{"429", map[string]string{"retry-after": "20"}, 20 * time.Second},
		{"429", map[string]string{"retry-after": "1.2"}, 2 * time.Second},
		{"429", map[string]string{"retry-after": "20", "retry-after-ms": "1500"}, 1500 * time.Millisecond},
		{"503", map[string]string{"retry-after": "Wed, 02 Jan 2030 03:04:35 GMT"}, 30 * time.Second},
		{"503", map[string]string{"retry-after": "Wed, 02 Jan 2030 03:04:00 GMT"}, 0},
		{"503", map[string]string{"x-ratelimit-reset-requests": "5s"}, 0},
		{"500", map[string]string{"retry-after": "20"}, 0},
		{"429", map[string]string{"retry-after": "-5"}, 0},
		{"429", map[string]string{"retry-after": "soon"}, 0},
		{"429", map[string]string{"retry-after": "99999999999"}, time.Hour},
		{"429", map[string]string{"retry-after": "99999999999999999999999999"}, 0},
		{"429", map[string]string{"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s"}, 6 * time.Minute},
		{"429", map[string]string{"x-ratelimit-remaining-tokens": "7", "x-ratelimit-reset-tokens": "6m0s", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "120ms"}, 120 * time.Millisecond},
		{"200", map[string]string{"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "17s", "x-ratelimit-reset-tokens": "1h"}, 17 * time.Second},
		{"200", map[string]string{"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "17s"}, 0},
		{"200", map[string]string{"retry-after": "20"}, 0},
		{"429", map[string]string{"x-ratelimit-reset-requests": "-9h"}, 0},
		{"429", map[string]string{"x-ratelimit-reset-requests": "2562047h"}, time.Hour},
	} {
		if got := Rest(tt.status, now, func(name string) string { return tt.headers[name] }); got != tt.want {
			t.Errorf("%s %v: %v, want %v", tt.status, tt.headers, got, tt.want)
		}
	}
}

func FuzzRest(f *testing.F) {
	f.Add("20", "0", "6m0s")
	f.Add("Wed, 02 Jan 2030 03:04:35 GMT", "x", "1e9s")
	f.Fuzz(func(t *testing.T, after, remaining, reset string) {
		for _, status := range []string{"200", "429", "503"} {
			got := Rest(status, time.Unix(0, 0), func(name string) string {
				switch name {
				case "retry-after", "retry-after-ms":
					return after
				case "x-ratelimit-remaining-tokens":
					return remaining
				}
				return reset
			})
			if got < 0 || got > maxRest {
				t.Errorf("%v", got)
			}
		}
	})
}
