// Package doctor proves on each proxy that every policy is in force. It sends
// probes through Envoy, as a client would, and believes only what weir signs of
// them: see internal/probe. It decides nothing about requests, and a probe takes
// nothing and is nobody's request.
package doctor

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// State says how it stands with a policy.
type State string

// The states. A policy that nothing speaks against is not in force for that:
// either it is proved, or the doctor cannot tell.
const (
	InForce    State = "yes"
	NotInForce State = "NO"
	Unknown    State = "could not tell"
	Warning    State = "warning" // what is allowed and probably not meant; it proves nothing
)

// The policies that every listener is probed for, beside each stage of the pipeline
// ("stage quota") and each limit ("limit per-team").
const (
	Decisions      = "decisions"      // requests are decided by weir
	Plan           = "plan"           // by the plan that is in force here
	Authentication = "authentication" // a request without a key is refused
	Keys           = "api keys"       // and one with a wrong key
	Headers        = "headers"        // a client cannot send weir's or Envoy's own headers
	Paths          = "paths"          // what weir does not serve is refused
	Reading        = "strict reading" // a body that two readers would read differently is refused
	Size           = "body size"      // a body over the bound is refused, on its headers
)

// Finding is how it stands with one policy, and by what that is known.
type Finding struct {
	Proxy    string `json:"proxy,omitempty"` // "" for what is of no proxy, as a limit that counts nothing
	Listener string `json:"listener,omitempty"`
	Policy   string `json:"policy"`
	State    State  `json:"in_force"`
	Evidence string `json:"evidence"`
	// Chosen says that the configuration wants it so: a stage in shadow mode.
	Chosen bool `json:"chosen,omitempty"`
	// Closed says that the listener ended the TLS handshake: who shows no certificate
	// does not get in, the doctor included.
	Closed bool `json:"closed,omitempty"`
}

// Wrong tells whether it is proved that the policy is not in force, and nobody
// wanted that.
func (f *Finding) Wrong() bool { return f.State == NotInForce && !f.Chosen }

// Report is what one examination found.
type Report struct {
	At       time.Time `json:"at"`
	Plan     string    `json:"plan"` // the version in force in the process that examined
	Findings []Finding `json:"findings"`
}

// State is the worst of all findings: one policy that is not in force counts more
// than any that could not be told.
func (r *Report) State() State {
	worst := InForce
	for i := range r.Findings {
		switch r.Findings[i].State {
		case NotInForce:
			return NotInForce
		case Unknown:
			worst = Unknown
		}
	}
	return worst
}

// Sort orders the findings by proxy, those that are not in force first.
func (r *Report) Sort() {
	weight := map[State]int{NotInForce: 0, Unknown: 1, Warning: 2, InForce: 3}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(strings.Compare(a.Proxy, b.Proxy), strings.Compare(a.Listener, b.Listener), weight[a.State]-weight[b.State])
	})
}

// WriteText writes the report as a table.
func (r *Report) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PROXY\tLISTENER\tPOLICY\tIN FORCE\tEVIDENCE")
	for _, f := range r.Findings {
		state := string(f.State)
		if f.Chosen {
			state += " (configured)"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", word(f.Proxy), word(f.Listener), plain(f.Policy), state, plain(f.Evidence))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s\n", r.summary())
	return err
}

func (r *Report) summary() string {
	n := map[State]int{}
	for _, f := range r.Findings {
		n[f.State]++
	}
	at := fmt.Sprintf("under plan %s, %s", r.Plan, r.At.UTC().Format(time.RFC3339))
	if r.State() == InForce {
		return fmt.Sprintf("All %d policies are in force, %s.", n[InForce], at)
	}
	return fmt.Sprintf("%d not in force, %d could not be told, %d in force, %s.", n[NotInForce], n[Unknown], n[InForce], at)
}

func word(s string) string {
	if s == "" {
		return "-"
	}
	return plain(s)
}

// plain keeps what an Envoy or a stranger said from writing on the terminal.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
