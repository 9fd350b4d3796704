package probe

import (
	"encoding/json"
	"errors"
)

// Answer is what weir says of one probe.
type Answer struct {
	ID      string  `json:"id"`   // the decision's
	Plan    string  `json:"plan"` // the version of the plan under which it was judged
	Verdict string  `json:"verdict"`
	Reason  string  `json:"reason,omitempty"`
	Stage   string  `json:"stage,omitempty"` // that ended it
	Stages  []Stage `json:"stages,omitempty"`
	// Limits are those that counted the request, by name, at most MaxLimits.
	Limits []Limit `json:"limits,omitempty"`
	// Leaked are the headers, by name, that reached weir with the nonce for their
	// value, at most MaxLeaked: a client sent them and Envoy should have dropped them.
	Leaked []string `json:"leaked,omitempty"`
}

// The verdicts.
const (
	Passed  = "passed" // it would have gone to a target
	Refused = "refused"
	Replied = "replied" // weir has an answer of its own, as for the list of models
)

// Stage is a stage of the pipeline, in its order.
type Stage struct {
	Name   string `json:"name"`
	Mode   string `json:"mode"`
	Ran    bool   `json:"ran,omitempty"`
	Reason string `json:"reason,omitempty"` // why it refuses, or would
}

// Limit is a limit that counted the probe; Refused, the one that refuses it.
type Limit struct {
	Name    string `json:"name"`
	Refused bool   `json:"refused,omitempty"`
}

// An answer travels in a header, so that what it names is bounded.
const (
	MaxLimits = 64
	MaxLeaked = 32
)

var errForged = errors.New("the answer is not signed by a weir of this configuration")

// Sign writes the answer to the probe with this nonce.
func (k Key) Sign(n Nonce, a *Answer) string {
	b, err := json.Marshal(a)
	if err != nil { // strings, booleans and lists always marshal
		return ""
	}
	return k.seal("answer "+n.String(), b)
}

// Open reads what Sign wrote for the same nonce.
func (k Key) Open(n Nonce, s string) (*Answer, error) {
	if len(s) > maxAnswer {
		return nil, errForged
	}
	b, ok := k.open("answer "+n.String(), s)
	if !ok {
		return nil, errForged
	}
	a := new(Answer)
	if err := json.Unmarshal(b, a); err != nil {
		return nil, errForged
	}
	return a, nil
}
