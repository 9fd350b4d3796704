// Package ai holds the nouns that every part of weir shares: who calls, what
// was used, what it cost, and why a request was refused. It imports nothing of
// weir and nothing heavy, because it is compiled into the Wasm filters too.
package ai

import (
	"math/bits"
	"strings"
)

// Kind is what a request asks for.
type Kind string

// The kinds of requests.
const (
	KindChat       Kind = "chat"
	KindCompletion Kind = "completion"
	KindEmbedding  Kind = "embedding"
	KindModels     Kind = "models"
)

// Placement says where a pool's endpoints are.
type Placement string

// Calling a public pool is egress and needs permission.
const (
	Private Placement = "private"
	Public  Placement = "public"
)

// Principal is who calls. Its strings are names from the configuration, never
// secrets.
type Principal struct {
	Key          string
	Application  string
	Team         string
	Organisation string
	User         string   // who the caller says acts; empty when nobody is named
	Roles        []string // sorted, without duplicates
}

// Usage counts tokens. The classes are disjoint: the input of a request is
// Input + CachedInput. Reasoning is the part of Output that was reasoning.
type Usage struct {
	Input       int64
	CachedInput int64
	Output      int64
	Reasoning   int64
}

// TotalInput is all input, computed and cached.
func (u Usage) TotalInput() int64 { return u.Input + u.CachedInput }

// Total is all tokens.
func (u Usage) Total() int64 { return u.Input + u.CachedInput + u.Output }

// Certainty says where a token figure comes from.
type Certainty uint8

// The certainties, as in weir.usage.v1.Certainty.
const (
	CertaintyUnspecified Certainty = iota
	Reported                       // the backend said so
	Counted                        // weir's tokenizer counted it
	Estimated                      // an upper bound, a reservation, or derived from what was streamed
)

func (c Certainty) String() string {
	switch c {
	case Reported:
		return "reported"
	case Counted:
		return "counted"
	case Estimated:
		return "estimated"
	}
	return "unspecified"
}

// NanoUSD is money in billionths of a US dollar.
type NanoUSD int64

// Price is what a million tokens of each class cost.
type Price struct {
	Input       NanoUSD
	CachedInput NanoUSD
	Output      NanoUSD
}

// Cost is what u costs, each class rounded up to the next nano-dollar.
// It saturates instead of overflowing.
func (p Price) Cost(u Usage) NanoUSD {
	sum := classCost(u.Input, p.Input)
	for _, c := range [...]NanoUSD{classCost(u.CachedInput, p.CachedInput), classCost(u.Output, p.Output)} {
		if sum += c; sum < 0 {
			return maxNanoUSD
		}
	}
	return sum
}

// Bound is the most that a request can cost with at most so many tokens, of
// whatever class.
func (p Price) Bound(input, output int64) NanoUSD {
	sum := classCost(input, max(p.Input, p.CachedInput)) + classCost(output, p.Output)
	if sum < 0 {
		return maxNanoUSD
	}
	return sum
}

const maxNanoUSD = NanoUSD(1<<63 - 1)

func classCost(tokens int64, perMillion NanoUSD) NanoUSD {
	if tokens <= 0 || perMillion <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(tokens), uint64(perMillion))
	lo, carry := bits.Add64(lo, 999_999, 0)
	if hi += carry; hi >= 1_000_000 {
		return maxNanoUSD
	}
	q, _ := bits.Div64(hi, lo, 1_000_000)
	if q > uint64(maxNanoUSD) {
		return maxNanoUSD
	}
	return NanoUSD(q)
}

// Reason names why a request was refused. The set is bounded: the same word
// stands in the client's error, the logs, the metrics, the event and explain.
type Reason string

// The reasons. Answer tells what a client sees of each.
const (
	ReasonNone             Reason = ""
	ReasonUnknownPath      Reason = "unknown_path"
	ReasonMethod           Reason = "method_not_allowed"
	ReasonMissingKey       Reason = "missing_key"
	ReasonInvalidKey       Reason = "invalid_key"
	ReasonKeyDisabled      Reason = "key_disabled"
	ReasonEmptyBody        Reason = "empty_body"
	ReasonEncodedBody      Reason = "encoded_body"
	ReasonInvalidJSON      Reason = "invalid_json"
	ReasonDuplicateKey     Reason = "duplicate_key"
	ReasonInvalidUTF8      Reason = "invalid_utf8"
	ReasonTooDeep          Reason = "too_deep"
	ReasonTooLarge         Reason = "body_too_large"
	ReasonInvalidField     Reason = "invalid_field"
	ReasonUnknownModel     Reason = "unknown_model"
	ReasonModelNotAllowed  Reason = "model_not_allowed"
	ReasonEgressNotAllowed Reason = "egress_not_allowed"
	ReasonContextTooLong   Reason = "context_too_long"
	ReasonNoRoute          Reason = "no_route"
	ReasonLimitExceeded    Reason = "limit_exceeded"
	ReasonBudgetExceeded   Reason = "budget_exceeded"
	ReasonUnavailable      Reason = "unavailable"
	// ReasonPoolResting is that every backend asked not to be called for a while.
	ReasonPoolResting Reason = "pool_resting"
	// ReasonLimitsUnavailable is that nobody knows what is left of the limits.
	ReasonLimitsUnavailable Reason = "limits_unavailable"
	ReasonBackendRefused    Reason = "backend_refused"
	ReasonInternal          Reason = "internal_error"

	// What no role of the caller permits, beside models and egress.
	ReasonEndpointNotAllowed Reason = "endpoint_not_allowed"
	ReasonOutsideHours       Reason = "outside_hours"
	ReasonFeatureNotAllowed  Reason = "feature_not_allowed"
	ReasonOutputNotAllowed   Reason = "output_not_allowed"
	ReasonPoolNotAllowed     Reason = "pool_not_allowed"
	ReasonContextNotAllowed  Reason = "context_not_allowed"

	// Of keys; the client is told the same of all.
	ReasonKeyExpired  Reason = "key_expired"
	ReasonKeyRevoked  Reason = "key_revoked"
	ReasonKeyOrphaned Reason = "key_orphaned" // its team, application or a role is gone
)

// Answer is how a reason appears to an OpenAI client: HTTP status, error type
// and error code. The SDKs choose the error class by the status alone.
type Answer struct {
	Status int
	Type   string
	Code   string
}

var answers = map[Reason]Answer{
	ReasonUnknownPath:       {404, "invalid_request_error", "unknown_url"},
	ReasonMethod:            {405, "invalid_request_error", "method_not_supported"},
	ReasonMissingKey:        {401, "authentication_error", "invalid_api_key"},
	ReasonInvalidKey:        {401, "authentication_error", "invalid_api_key"},
	ReasonKeyDisabled:       {401, "authentication_error", "invalid_api_key"},
	ReasonEmptyBody:         {400, "invalid_request_error", "empty_body"},
	ReasonEncodedBody:       {415, "invalid_request_error", "unsupported_content_encoding"},
	ReasonInvalidJSON:       {400, "invalid_request_error", "invalid_json"},
	ReasonDuplicateKey:      {400, "invalid_request_error", "duplicate_key"},
	ReasonInvalidUTF8:       {400, "invalid_request_error", "invalid_utf8"},
	ReasonTooDeep:           {400, "invalid_request_error", "too_deep"},
	ReasonTooLarge:          {413, "invalid_request_error", "request_too_large"},
	ReasonInvalidField:      {400, "invalid_request_error", "invalid_value"},
	ReasonUnknownModel:      {404, "invalid_request_error", "model_not_found"},
	ReasonModelNotAllowed:   {404, "invalid_request_error", "model_not_found"}, // as one that does not exist
	ReasonEgressNotAllowed:  {403, "permission_error", "egress_not_allowed"},
	ReasonContextTooLong:    {400, "invalid_request_error", "context_length_exceeded"},
	ReasonNoRoute:           {403, "permission_error", "no_route"},
	ReasonLimitExceeded:     {429, "rate_limit_error", "rate_limit_exceeded"},
	ReasonBudgetExceeded:    {429, "insufficient_quota", "insufficient_quota"},
	ReasonPoolResting:       {429, "rate_limit_error", "rate_limit_exceeded"},
	ReasonLimitsUnavailable: {503, "server_error", "service_unavailable"},
	ReasonBackendRefused:    {502, "server_error", "backend_refused"},
	ReasonUnavailable:       {503, "server_error", "service_unavailable"},
	ReasonInternal:          {500, "server_error", "internal_error"},

	ReasonEndpointNotAllowed: {403, "permission_error", "endpoint_not_allowed"},
	ReasonOutsideHours:       {403, "permission_error", "outside_hours"},
	ReasonFeatureNotAllowed:  {403, "permission_error", "feature_not_allowed"},
	ReasonOutputNotAllowed:   {403, "permission_error", "output_not_allowed"},
	ReasonPoolNotAllowed:     {403, "permission_error", "pool_not_allowed"},
	ReasonContextNotAllowed:  {403, "permission_error", "context_not_allowed"},

	ReasonKeyExpired:  {401, "authentication_error", "invalid_api_key"},
	ReasonKeyRevoked:  {401, "authentication_error", "invalid_api_key"},
	ReasonKeyOrphaned: {401, "authentication_error", "invalid_api_key"},
}

// Answer returns how the reason appears to a client. A reason outside the set
// appears as an internal error.
func (r Reason) Answer() Answer {
	if a, ok := answers[r]; ok {
		return a
	}
	return answers[ReasonInternal]
}

// BearerToken takes the key out of an Authorization header's value; the scheme
// is case-insensitive (RFC 9110, 11.1).
func BearerToken(authorization string) (string, bool) {
	scheme, token, ok := strings.Cut(authorization, " ")
	if !ok || !strings.EqualFold(scheme, "bearer") {
		return "", false
	}
	token = strings.TrimSpace(token)
	return token, token != ""
}
