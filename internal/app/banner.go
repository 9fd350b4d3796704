package app

import (
	"fmt"
	"io"
	"net"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// baseURL is what applications put into OPENAI_BASE_URL: the first listener.
func baseURL(p *plan.Plan) string {
	l := p.Listeners[0]
	scheme := "http"
	if l.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + reachable(l.Address) + "/v1"
}

// reachable replaces an address that means every interface by loopback.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// banner prints what a person pastes to try the gateway. Only a key that weir
// itself made for trying things out is ever printed.
func banner(w io.Writer, p *plan.Plan, base string) {
	key, shown := "YOUR_KEY", false
	for _, k := range p.KeyList {
		if k.Shown == "" {
			continue
		}
		if _, refused := p.KeyByToken(k.Shown, time.Now()); refused == ai.ReasonNone {
			key, shown = k.Shown, true
			break
		}
	}
	model := p.ModelList[0].Name
	for _, m := range p.ModelList {
		if len(m.Aliases) > 0 {
			model = m.Name
			break
		}
	}
	fmt.Fprintf(w, "\nweir is ready at %s\n\n", base)
	if shown {
		fmt.Fprintf(w, "export OPENAI_BASE_URL=%s OPENAI_API_KEY=%s\n\n", base, key)
	} else {
		fmt.Fprintf(w, "export OPENAI_BASE_URL=%s\n\n", base)
	}
	fmt.Fprintf(w, "curl -s $OPENAI_BASE_URL/chat/completions -H \"authorization: Bearer $OPENAI_API_KEY\" -H 'content-type: application/json' -d '{\"model\":%q,\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]}'\n\n", model)
	fmt.Fprintf(w, "With the official client (python3 -m pip install openai):\n\npython3 -c 'import openai; print(openai.OpenAI().chat.completions.create(model=%q, messages=[{\"role\": \"user\", \"content\": \"Hello\"}]).choices[0].message.content)'\n\n", model)
}
