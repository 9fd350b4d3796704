package auth

import (
	"errors"
	"strings"

	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// spiffeID is the caller's workload identity; "" when nothing tells of one. From a
// trusted proxy it is the one in x-forwarded-client-cert: such a proxy speaks for
// others, and its own certificate is nobody's identity. From all others it is that
// of the connection, and the header is nothing.
func spiffeID(ex *pipeline.Exchange) (string, error) {
	var id string
	if ex.Plan.Proxies.Trusts(ex.In.Peer) {
		value, ok := ex.In.HeaderList("x-forwarded-client-cert")
		if !ok {
			return "", nil
		}
		var err error
		if id, err = forwardedURI(value); err != nil {
			return "", err
		}
	} else {
		value, lines := ex.In.Header(ai.PeerURIHeader)
		if lines > 1 {
			return "", errIdentity
		}
		id = value
	}
	if id == "" {
		return "", nil
	}
	// A certificate with several URIs is none of a workload (X509-SVID, 2), and
	// joined by commas they are no ID.
	return id, plan.CheckSPIFFEID(id)
}

var errIdentity = errors.New("what tells of the client certificate cannot be read")

// forwardedURI is the URI in the last element of x-forwarded-client-cert, which
// the proxy that sent it has written; "" when that has none. Elements are separated
// by commas, in them key=value pairs by semicolons; a value in double quotes holds
// any of these, and quotes behind a backslash
// (https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-forwarded-client-cert).
// A header of which any part has another form is refused as a whole: a client that
// could write the elements before would else move where the last one begins.
func forwardedURI(header string) (string, error) {
	var uri string
	for rest := header; ; {
		key, after, ok := strings.Cut(rest, "=")
		key = strings.TrimLeft(key, " ")
		if !ok || key == "" || strings.ContainsAny(key, " \t\",;\\") {
			return "", errIdentity
		}
		value, end, ok := forwardedValue(after)
		if !ok {
			return "", errIdentity
		}
		if strings.EqualFold(key, "uri") && value != "" {
			if uri != "" {
				return "", errIdentity
			}
			uri = value
		}
		if end == len(after) {
			return uri, nil
		}
		if after[end] == ',' {
			uri = ""
		}
		rest = after[end+1:]
	}
}

// forwardedValue reads a value and answers where it ends: at a separator, or at the
// end of the text.
func forwardedValue(s string) (value string, end int, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		if end = strings.IndexAny(s, ",;"); end < 0 {
			end = len(s)
		}
		return s[:end], end, !strings.ContainsAny(s[:end], " \t\"\\")
	}
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			ok = i+1 == len(s) || s[i+1] == ',' || s[i+1] == ';'
			return s[1:i], i + 1, ok
		}
	}
	return "", 0, false
}
