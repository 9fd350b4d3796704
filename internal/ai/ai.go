// Package ai holds the nouns that every part of weir shares: who calls, what
// was used, what it cost, and why a request was refused. It imports nothing of
// weir and nothing heavy, because it is compiled into the Wasm filters too.
package ai

import "strings"

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
	User         string   // who acts, as a token's claims say; empty when nobody is named
	Roles        []string // sorted, without duplicates
}

// Identity says how a caller was known.
type Identity string

// The identities.
const (
	IdentityKey      Identity = "key"      // an API key
	IdentityJWT      Identity = "jwt"      // a token that Envoy verified
	IdentityWorkload Identity = "workload" // a client certificate
)

// WorkloadKey and IssuerKey stand where a key's name does for callers that have
// no key. A key's name holds no colon.
func WorkloadKey(name string) string { return "workload:" + name }

// IssuerKey is the same for all tokens of an issuer: users are many.
func IssuerKey(name string) string { return "issuer:" + name }

// Usage counts tokens in classes. Those of input are disjoint and add up to all
// input; Output is all output, and what follows it are parts of it, disjoint too.
type Usage struct {
	Input       int64 // computed, and in no other class of input
	CachedInput int64 // read from the backend's cache
	CacheWrite  int64 // computed and written into it
	AudioInput  int64
	ImageInput  int64 // videos too

	Output      int64
	Reasoning   int64
	AudioOutput int64
	ImageOutput int64
}

// ComputedInput is the input that was not read from a cache.
func (u Usage) ComputedInput() int64 { return u.Input + u.CacheWrite + u.AudioInput + u.ImageInput }

// TotalInput is all input, computed and cached.
func (u Usage) TotalInput() int64 { return u.ComputedInput() + u.CachedInput }

// Total is all tokens.
func (u Usage) Total() int64 { return u.TotalInput() + u.Output }

// Add is what both used together.
func (u Usage) Add(v Usage) Usage {
	return Usage{
		Input: u.Input + v.Input, CachedInput: u.CachedInput + v.CachedInput, CacheWrite: u.CacheWrite + v.CacheWrite,
		AudioInput: u.AudioInput + v.AudioInput, ImageInput: u.ImageInput + v.ImageInput,
		Output: u.Output + v.Output, Reasoning: u.Reasoning + v.Reasoning,
		AudioOutput: u.AudioOutput + v.AudioOutput, ImageOutput: u.ImageOutput + v.ImageOutput,
	}
}

// Clamp puts every figure between 0 and limit, and cuts the parts of the output to
// what there is of it: sound first, which is dearest, reasoning last.
func (u Usage) Clamp(limit int64) Usage {
	for _, n := range [...]*int64{&u.Input, &u.CachedInput, &u.CacheWrite, &u.AudioInput, &u.ImageInput, &u.Output} {
		*n = min(max(*n, 0), limit)
	}
	rest := u.Output
	for _, n := range [...]*int64{&u.AudioOutput, &u.ImageOutput, &u.Reasoning} {
		*n = min(max(*n, 0), rest)
		rest -= *n
	}
	return u
}

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
	// ReasonPoolBusy is that the pools have as much to do as their limit lets them.
	ReasonPoolBusy Reason = "pool_busy"
	// ReasonPoolResting is that every backend asked not to be called for a while.
	ReasonPoolResting Reason = "pool_resting"
	// ReasonAttemptsUsed is that a target is not tried: those before it are as many as
	// the model permits a request. It refuses nothing.
	ReasonAttemptsUsed Reason = "max_attempts"
	// ReasonLimitsUnavailable is that nobody knows what is left of the limits.
	ReasonLimitsUnavailable Reason = "limits_unavailable"
	ReasonBackendRefused    Reason = "backend_refused"
	// ReasonStreamInterrupted is that a backend's answer ended before it was whole.
	ReasonStreamInterrupted Reason = "stream_interrupted"
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

	// ReasonBypass: the request came past weir, to a pool or to nobody.
	ReasonBypass Reason = "bypass"
)

// The reasons of identity and network.
const (
	ReasonAmbiguousCredential Reason = "ambiguous_credential" // several that differ
	ReasonInvalidToken        Reason = "invalid_token"        // a JWT that Envoy did not verify, for whatever cause
	ReasonClaimsNotBound      Reason = "claims_not_bound"     // a good JWT that stands for nobody here
	ReasonUnknownWorkload     Reason = "unknown_workload"
	ReasonInvalidIdentity     Reason = "invalid_identity" // what tells of a client certificate cannot be read
	ReasonNetworkNotAllowed   Reason = "network_not_allowed"
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
	ReasonPoolBusy:          {503, "overloaded_error", "pool_busy"},
	ReasonPoolResting:       {429, "rate_limit_error", "rate_limit_exceeded"},
	ReasonLimitsUnavailable: {503, "server_error", "service_unavailable"},
	ReasonBackendRefused:    {502, "server_error", "backend_refused"},
	ReasonStreamInterrupted: {502, "server_error", "stream_interrupted"},
	ReasonUnavailable:       {503, "server_error", "service_unavailable"},
	ReasonInternal:          {500, "server_error", "internal_error"},

	// Whoever tries credentials learns that none was accepted, and no more.
	ReasonAmbiguousCredential: {401, "authentication_error", "invalid_api_key"},
	ReasonInvalidToken:        {401, "authentication_error", "invalid_api_key"},
	ReasonUnknownWorkload:     {401, "authentication_error", "invalid_api_key"},
	ReasonInvalidIdentity:     {401, "authentication_error", "invalid_api_key"},
	ReasonClaimsNotBound:      {403, "permission_error", "claims_not_bound"},
	ReasonNetworkNotAllowed:   {403, "permission_error", "network_not_allowed"},

	ReasonEndpointNotAllowed: {403, "permission_error", "endpoint_not_allowed"},
	ReasonOutsideHours:       {403, "permission_error", "outside_hours"},
	ReasonFeatureNotAllowed:  {403, "permission_error", "feature_not_allowed"},
	ReasonOutputNotAllowed:   {403, "permission_error", "output_not_allowed"},
	ReasonPoolNotAllowed:     {403, "permission_error", "pool_not_allowed"},
	ReasonContextNotAllowed:  {403, "permission_error", "context_not_allowed"},

	ReasonKeyExpired:  {401, "authentication_error", "invalid_api_key"},
	ReasonKeyRevoked:  {401, "authentication_error", "invalid_api_key"},
	ReasonKeyOrphaned: {401, "authentication_error", "invalid_api_key"},

	ReasonBypass: {403, "permission_error", "bypass"},
}

// Answer returns how the reason appears to a client. A reason outside the set
// appears as an internal error.
func (r Reason) Answer() Answer {
	if a, ok := answers[r]; ok {
		return a
	}
	return answers[ReasonInternal]
}

// BearerToken takes the credential out of an Authorization header's value. The
// scheme is case-insensitive (RFC 9110, 11.1); one space stands behind it, and
// nothing is trimmed: what two readers could read differently is refused.
func BearerToken(authorization string) (string, bool) {
	scheme, token, ok := strings.Cut(authorization, " ")
	if !ok || !strings.EqualFold(scheme, "bearer") || !Credential(token) {
		return "", false
	}
	return token, true
}

// maxCredential is the longest credential: tokens with many groups have some KB.
const maxCredential = 16 << 10

// Credential tells whether s can be a credential: printable ASCII without
// spaces, and without the comma, by which several header lines become one.
func Credential(s string) bool {
	if len(s) == 0 || len(s) > maxCredential {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == ',' {
			return false
		}
	}
	return true
}
