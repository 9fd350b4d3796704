package auth

import (
	"strings"

	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
)

// credential is what a client sent to say who it is.
type credential struct {
	token  string // "" when it sent none
	bearer bool   // in Authorization, where Envoy looks for tokens
}

// isBearer tells whether an Authorization header is of this scheme at all.
func isBearer(value string) bool {
	const scheme = "bearer "
	return len(value) > len(scheme) && strings.EqualFold(value[:len(scheme)], scheme)
}

// credentialOf finds the one credential: in Authorization, x-api-key or api-key.
// Clients that send it in several of them, or twice, are understood if all are
// the same; where they differ another reader might take another one.
func credentialOf(in *pipeline.Inbound) (c credential, reason ai.Reason) {
	for i := range in.Headers {
		h := &in.Headers[i]
		token, ok := h.Value, false
		switch h.Name {
		case "authorization":
			token, ok = ai.BearerToken(h.Value)
			c.bearer = ok || isBearer(h.Value)
		case "x-api-key", "api-key":
			ok = ai.Credential(token)
		default:
			continue
		}
		switch {
		case !ok:
			return credential{bearer: c.bearer}, ai.ReasonInvalidKey
		case c.token != "" && c.token != token:
			return credential{}, ai.ReasonAmbiguousCredential
		}
		c.token = token
	}
	return c, ai.ReasonNone
}

// isToken tells whether a credential looks like a JWT in its compact form: three
// parts of base64url (RFC 7515, 3.1). It is a question of which answer to give,
// never of trust.
func isToken(s string) bool {
	dots := 0
	for i := range len(s) {
		switch c := s[i]; {
		case c == '.':
			if dots++; i == 0 || s[i-1] == '.' {
				return false
			}
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return dots == 2 // the last part, the signature, is empty with alg none
}

// payloadOf is the middle part of a token.
func payloadOf(token string) string {
	_, rest, _ := strings.Cut(token, ".")
	payload, _, _ := strings.Cut(rest, ".")
	return payload
}
