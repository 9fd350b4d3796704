package openai

import (
	"strconv"
	"strings"
	"time"
)

// maxRest bounds for how long a backend can ask to be left alone.
const maxRest = time.Hour

// Rest is for how long a backend asks not to be called, by its status and its
// headers, which header reads (empty for one that is absent): Retry-After of a 429
// or a 503 (seconds or a date, RFC 9110, 10.2.3; some send retry-after-ms), else
// the reset of what is used up by its x-ratelimit headers (as OpenAI's API
// reference describes them). Zero is for not at all; it is never more than an hour.
func Rest(status string, now time.Time, header func(name string) string) time.Duration {
	rest := time.Duration(0)
	switch status {
	case "429", "503":
		rest = retryAfter(now, header)
		if rest == 0 && status == "429" {
			rest = resets(header, true)
		}
	case "200":
		rest = resets(header, false)
	}
	return min(max(rest, 0), maxRest)
}

func retryAfter(now time.Time, header func(string) string) time.Duration {
	if ms, ok := number(header("retry-after-ms")); ok {
		return scale(ms, time.Millisecond)
	}
	text := header("retry-after")
	if seconds, ok := number(text); ok {
		return scale(seconds, time.Second)
	}
	// The one form of a date that may be sent (RFC 9110, 5.6.7). Package http, which
	// reads the obsolete ones too, would be half of the Wasm filter.
	if at, err := time.Parse("Mon, 02 Jan 2006 15:04:05 GMT", text); err == nil {
		return at.Sub(now)
	}
	return 0
}

// resets is the latest reset of the kinds of which nothing remains; refused is
// when the backend says that something is used up, and not what.
func resets(header func(string) string, refused bool) (rest time.Duration) {
	for _, kind := range [...]string{"requests", "tokens"} {
		remaining := header("x-ratelimit-remaining-" + kind)
		if n, ok := number(remaining); ok && n > 0 || remaining == "" && !refused {
			continue
		}
		rest = max(rest, reset(header("x-ratelimit-reset-"+kind)))
	}
	return rest
}

// reset reads a duration as OpenAI writes it, 6m0s or 120ms, or seconds.
func reset(text string) time.Duration {
	if seconds, ok := number(text); ok {
		return scale(seconds, time.Second)
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0
	}
	return d
}

// number reads a number that is not negative; fractions are cut up to the next
// whole one.
func number(text string) (int64, bool) {
	whole, fraction, _ := strings.Cut(text, ".")
	n, err := strconv.ParseUint(whole, 10, 40)
	if err != nil || strings.Trim(fraction, "0123456789") != "" {
		return 0, false
	}
	if strings.Trim(fraction, "0") != "" {
		n++
	}
	return int64(n), true
}

func scale(n int64, unit time.Duration) time.Duration {
	return time.Duration(min(n, int64(maxRest/unit))) * unit
}
