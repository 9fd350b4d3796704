package usage

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirproxy/weir/internal/ai"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
)

// What an entry makes of an admitted request, as
// "outcome pool in/cached/out in-certainty/out-certainty cost; attempts".
func TestClosed(t *testing.T) {
	for name, tc := range map[string]struct {
		edit func(e *Entry, d *usagev1.Decision)
		want string
	}{
		"reported": {
			func(e *Entry, d *usagev1.Decision) {},
			"completed local-vllm 712/100/64 reported/reported 97800; local-vllm 200",
		},
		"failover": {
			func(e *Entry, d *usagev1.Decision) {
				e.Attempts, e.Cluster = "local-vllm:503;provider:200", "pool/provider"
			},
			"completed provider 712/100/64 reported/reported 1068000; local-vllm 503 status, provider 200",
		},
		"first token too late, then refused connection, then an answer": {
			func(e *Entry, d *usagev1.Decision) { e.Attempts = "local-vllm:200;x:0;provider:200" },
			"completed provider 712/100/64 reported/reported 1068000; local-vllm 200 no_content, x 0 no_response, provider 200",
		},
		"no usage in a stream": {
			func(e *Entry, d *usagev1.Decision) { e.Usage = "chunks=64 text=301 done" },
			"completed local-vllm 800/0/76 estimated/estimated 110400; local-vllm 200",
		},
		"more content events than text": {
			func(e *Entry, d *usagev1.Decision) { e.Usage = "chunks=64 text=8" },
			"completed local-vllm 800/0/64 estimated/estimated 105600; local-vllm 200",
		},
		"input was counted": {
			func(e *Entry, d *usagev1.Decision) {
				d.InputCertainty, e.Usage = usagev1.Certainty_CERTAINTY_COUNTED, ""
			},
			"completed local-vllm 800/0/225 counted/estimated 170000; local-vllm 200",
		},
		"embedding without usage": {
			func(e *Entry, d *usagev1.Decision) { d.Kind, e.Usage = "embedding", "text=4000" },
			"completed local-vllm 800/0/0 estimated/estimated 80000; local-vllm 200",
		},
		"usage cannot be read": {
			func(e *Entry, d *usagev1.Decision) { e.Usage = "in=lots reported" },
			"completed local-vllm 800/0/225 estimated/estimated 170000; local-vllm 200",
		},
		"client gone midway": {
			func(e *Entry, d *usagev1.Decision) { e.Flags, e.Usage = "DC", "chunks=10 text=50" },
			"client_gone local-vllm 800/0/13 estimated/estimated 85200; local-vllm 200",
		},
		"client gone midway, usage reported as it went": {
			func(e *Entry, d *usagev1.Decision) {
				e.Flags, e.Usage = "DC", "in=700 out=9 chunks=10 text=50 reported"
			},
			"client_gone local-vllm 700/0/9 reported/reported 73600; local-vllm 200",
		},
		"client gone before the backend answered": {
			func(e *Entry, d *usagev1.Decision) {
				e.Details, e.Status, e.Attempts, e.Usage = "downstream_remote_disconnect", 0, "local-vllm:0", ""
			},
			"client_gone  800/0/0 estimated/estimated 80000; local-vllm 0 client_gone",
		},
		"all targets failed": {
			func(e *Entry, d *usagev1.Decision) {
				e.Status, e.Flags, e.Attempts, e.Usage = 503, "URX,UF", "local-vllm:503;provider:0", ""
			},
			"failed  0/0/0 unspecified/unspecified 0; local-vllm 503 status, provider 0 connect_failure",
		},
		"the last target's refusal is passed on": {
			func(e *Entry, d *usagev1.Decision) { e.Status, e.Attempts, e.Usage = 400, "provider:400", "" },
			"failed provider 0/0/0 unspecified/unspecified 0; provider 400 status",
		},
		"reset mid-stream": {
			func(e *Entry, d *usagev1.Decision) { e.Flags, e.Usage = "UC", "chunks=10 text=50" },
			"failed local-vllm 800/0/13 estimated/estimated 85200; local-vllm 200 reset",
		},
		"a stream that ended with an error event": {
			func(e *Entry, d *usagev1.Decision) { d.Stream, e.Usage = true, "chunks=10 text=50 done" },
			"failed local-vllm 800/0/13 estimated/estimated 85200; local-vllm 200 interrupted",
		},
		"a stream that the adapter found broken": {
			func(e *Entry, d *usagev1.Decision) { d.Stream, e.Usage = true, "chunks=10 text=50" },
			"failed local-vllm 800/0/13 estimated/estimated 85200; local-vllm 200 interrupted",
		},
		"a stream that was silent for too long": {
			func(e *Entry, d *usagev1.Decision) {
				d.Stream, e.Details, e.Usage = true, ai.DetailsIdle, "chunks=10 text=50"
			},
			"failed local-vllm 800/0/13 estimated/estimated 85200; local-vllm 200 stream_idle_timeout",
		},
		"a whole answer that the adapter cut": {
			func(e *Entry, d *usagev1.Decision) { e.Details, e.Usage = ai.DetailsInterrupted, "text=50" },
			"failed local-vllm 800/0/13 estimated/estimated 85200; local-vllm 200 interrupted",
		},
		"the last first token came too late": {
			func(e *Entry, d *usagev1.Decision) { e.Status, e.Flags, e.Usage = 504, "UT", "" },
			"failed  0/0/0 unspecified/unspecified 0; local-vllm 200 first_token_timeout",
		},
		"no attempt was made": {
			func(e *Entry, d *usagev1.Decision) {
				e.Status, e.Flags, e.Attempts, e.Usage, e.Cluster = 503, "UH", "", "", "pool/local-vllm"
			},
			"failed  0/0/0 unspecified/unspecified 0; ",
		},
		"attempts are garbled": {
			func(e *Entry, d *usagev1.Decision) { e.Attempts = ";:200;a;a:b;a:1000;local-vllm:200;" },
			"completed local-vllm 712/100/64 reported/reported 97800; local-vllm 200",
		},
		"a pool that was no target costs nothing": {
			func(e *Entry, d *usagev1.Decision) { e.Attempts = "other:200" },
			"completed other 712/100/64 reported/reported 0; other 200",
		},
		"absurd figures": {
			func(e *Entry, d *usagev1.Decision) {
				e.Usage = fmt.Sprintf("in=%d out=%d reported", int64(math.MaxInt64), int64(math.MaxInt64))
				d.Prices[0].Output = math.MaxInt64
			},
			"completed local-vllm 4294967296/0/4294967296 reported/reported 1000000000000000; local-vllm 200",
		},
	} {
		t.Run(name, func(t *testing.T) {
			e, d := finished(1), admitted(1)
			tc.edit(&e, d)
			ev := closed(d, &e)
			got := fmt.Sprintf("%s %s %d/%d/%d %s/%s %d; ", ev.Outcome, ev.Pool, ev.Tokens.Input, ev.Tokens.CachedInput, ev.Tokens.Output,
				certainty(ev.InputCertainty), certainty(ev.OutputCertainty), ev.CostNanousd)
			var list []string
			for _, a := range ev.Attempts {
				list = append(list, strings.TrimSpace(fmt.Sprint(a.Pool, " ", a.Status, " ", a.Failure)))
			}
			if got += strings.Join(list, ", "); got != tc.want {
				t.Errorf("\n%s, want\n%s", got, tc.want)
			}
		})
	}
}

// A request that the adapter turned away on a route past weir is a refusal.
func TestBypassRefused(t *testing.T) {
	ev := bypass(*idOf(9), &Entry{Bypass: true, Start: noon, Status: 403, Details: ai.DetailsBypass, Cluster: "pool/a", Tries: 1})
	d := ev.Decision
	if ev.Outcome != OutcomeRefused || ev.Pool != "" || ev.Status != 403 || d.Verdict != VerdictRefused || d.Reason != "bypass" || d.Stage != stageEnvoy || d.Id != testID(9) {
		t.Errorf("%+v", ev)
	}
}

// One that ended at the cluster without endpoints is one too.
func TestBypassToNobody(t *testing.T) {
	ev := bypass(*idOf(9), &Entry{Bypass: true, Start: noon, Status: 503, Details: noUpstream, Cluster: ai.NoTargetCluster})
	if ev.Outcome != OutcomeRefused || ev.Decision.Verdict != VerdictRefused || ev.Decision.Reason != "bypass" {
		t.Errorf("%+v", ev)
	}
}

func TestFirstTokenBeforeTheStartIsZero(t *testing.T) {
	e := finished(1)
	e.Usage = "first=5"
	if ev := closed(admitted(1), &e); ev.FirstTokenUs != 0 {
		t.Error(ev.FirstTokenUs)
	}
}

func TestExpiredWithoutAReservation(t *testing.T) {
	d := admitted(1)
	d.ReservedInputTokens, d.ReservedOutputTokens, d.MaxOutputTokens = 0, 0, 100
	if got, want := Used(expired(d, noon)), (ai.Usage{Input: 800, Output: 100}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestLine(t *testing.T) {
	at := func(e *usagev1.Event) string { return e.End.AsTime().Local().Format(time.TimeOnly) }
	e := finished(1)
	completed := closed(admitted(1), &e)
	e.Attempts, e.Usage = "local-vllm:503;x:0;provider:200", "in=1000 out=64 reported"
	retried := closed(admitted(1), &e)
	e.Attempts, e.Usage = "provider:0;local-vllm:200", "in=10 cached=2 in.write=3 in.audio=4 in.image=5 out=60 reasoning=6 out.audio=7 out.image=8 reported"
	classes := closed(billing(1), &e)
	e.Status, e.Flags, e.Attempts, e.Usage = 504, "UT", "provider:0", ""
	givenUp := closed(billing(1), &e)
	hostile := refused(1)
	hostile.Key, hostile.Model, hostile.RequestedModel, hostile.Reason = "", "", "gpt\x1b[31m\n4", "unknown_model"
	for _, tc := range []struct {
		e    *usagev1.Event
		want string
	}{
		{completed, "demo (assistant/data) chat → local-vllm  in 812 (reported, 100 cached) out 64 (reported)  $0.0000978  first token 183 ms  200 completed"},
		{retried, "demo (assistant/data) chat → provider  in 1000 (reported) out 64 (reported)  $0.001256  tried local-vllm 503, x - no_response, provider 200  200 completed"},
		{classes, "demo (assistant/data) chat → local-vllm  in 24 (reported, 2 cached, 3 written to cache, 4 audio, 5 image) out 60 (reported, 6 reasoning, 7 audio, 8 image)  $0.00002622  given up $0.0016  tried provider - no_response, local-vllm 200  200 completed"},
		{givenUp, "demo (assistant/data) chat  given up $0.0016  tried provider - timeout  504 failed"},
		{answered(refused(1), noon), "demo (data) chat  429 refused: limit_exceeded"},
		{answered(hostile, noon), `- "gpt\x1b[31m\n4"  429 refused: unknown_model`},
		{expired(admitted(1), noon), "demo (assistant/data) chat  in 800 (estimated) out 4096 (estimated)  $0.017184  - unknown"},
		{&usagev1.Event{End: timestamppb.New(noon), Status: 503, Outcome: OutcomeUnavailable, Decision: &usagev1.Decision{Reason: "unavailable"}}, "- -  503 unavailable: unavailable"},
	} {
		if got, want := Line(tc.e), at(tc.e)+" "+tc.want; got != want {
			t.Errorf("\n%s, want\n%s", got, want)
		}
	}
}
