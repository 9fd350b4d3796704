package auth

import (
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"sync"

	"github.com/weirproxy/weir/dialect/jsonscan"
	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
)

// byToken finds the caller by a token that Envoy verified; false when Envoy
// verified none: the credential may be a key all the same. What was verified must
// be what was sent: Envoy looks for a token anywhere in the header's value.
func byToken(ex *pipeline.Exchange, token string) (pipeline.Verdict, bool) {
	payload, lines := ex.In.Header(ai.ClaimsHeader)
	if lines == 0 {
		return pipeline.Verdict{}, false
	}
	invalid := pipeline.Refuse(ai.ReasonInvalidToken, badToken)
	if lines != 1 || payload != payloadOf(token) {
		return invalid, true
	}
	claims, err := decodeClaims(payload)
	if err != nil {
		return invalid, true
	}
	iss, _ := claims["iss"].(string)
	issuer, ok := ex.Plan.IssuerOf(iss)
	if !ok {
		return invalid, true // an Envoy that has another plan still
	}
	caller, user, err := issuer.Binding.Bind(claims)
	if err != nil {
		return pipeline.Refuse(ai.ReasonClaimsNotBound, noAccess), true
	}
	ex.Principal, ex.Identity = caller.Principal, ai.IdentityJWT
	ex.Principal.User = user
	return enter(ex, caller.Roles, caller.Network), true
}

// maxClaimDepth is the deepest nesting of claims; providers use three levels.
const maxClaimDepth = 8

var errClaims = errors.New("the claims cannot be read")

var buffers = sync.Pool{New: func() any { return new([]byte) }}

// decodeClaims reads a token's payload: base64url without padding (RFC 7515, 2) of
// one JSON object, in which no name stands twice. Nothing of the answer lies in
// the payload. Whole numbers are int64, others float64.
func decodeClaims(payload string) (map[string]any, error) {
	if strings.ContainsAny(payload, "\r\n") { // the decoder would pass over them
		return nil, errClaims
	}
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	var err error
	if *buffer, err = strict.AppendDecode((*buffer)[:0], []byte(payload)); err != nil {
		return nil, errClaims
	}
	s := jsonscan.Acquire(*buffer, maxClaimDepth)
	defer s.Release()
	claims := object(s, *buffer)
	if !s.End() || claims == nil {
		return nil, errClaims
	}
	return claims, nil
}

// strict refuses bits behind the last byte, by which one text could be written in
// several ways.
var strict = base64.RawURLEncoding.Strict()

// object reads the object that comes next; what it answers after a fault is of no
// use.
func object(s *jsonscan.Scanner, body []byte) map[string]any {
	if !s.EnterObject() {
		return nil
	}
	m := map[string]any{}
	for key, ok := s.NextKey(); ok; key, ok = s.NextKey() {
		name := string(s.Text(key))
		m[name] = value(s, body)
	}
	return m
}

func value(s *jsonscan.Scanner, body []byte) any {
	switch s.Peek() {
	case jsonscan.Object:
		return object(s, body)
	case jsonscan.Array:
		list := []any{}
		for s.EnterArray(); s.NextItem(); {
			list = append(list, value(s, body))
		}
		return list
	}
	switch v := s.Value(); v.Kind {
	case jsonscan.String:
		return string(s.Text(v))
	case jsonscan.Number:
		return number(string(body[v.Off : v.Off+v.Len]))
	case jsonscan.True:
		return true
	case jsonscan.False:
		return false
	}
	return nil
}

func number(text string) any {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n
	}
	f, _ := strconv.ParseFloat(text, 64) // the scanner knows that it is a number; too large is infinite
	return f
}
