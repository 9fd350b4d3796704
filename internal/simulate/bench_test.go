package simulate

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// BenchmarkRead measures reading and checking a long conversation.
func BenchmarkRead(b *testing.B) {
	text := strings.Repeat("what is the level of the water tonight? ", 100)
	message := fmt.Sprintf(`{"role":"user","content":%q},`, text)
	body := `{"model":"m","messages":[` + strings.TrimSuffix(strings.Repeat(message, 50), ",") + `]}`
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, fail := readGeneration(body, true); fail != nil {
			b.Fatal(fail.message)
		}
	}
}

// BenchmarkServe measures server and client together, so that
//
//	go test -bench Serve -cpu 1 ./internal/simulate
//
// tells what one core serves at least.
func BenchmarkServe(b *testing.B) {
	text := strings.Repeat("what is the level of the water tonight? ", 45)
	for _, c := range []struct{ name, extra string }{
		{"json", `"max_tokens":150,"ignore_eos":true`},
		{"stream", `"max_tokens":100,"ignore_eos":true,"stream":true`},
	} {
		b.Run(c.name, func(b *testing.B) {
			body := fmt.Sprintf(`{"model":"m",%s,"messages":[{"role":"user","content":%q}]}`, c.extra, text)
			request := fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			addr := start(b, New(Options{Record: -1}))
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				conn, err := net.Dial("tcp", addr)
				if err != nil {
					b.Error(err)
					return
				}
				defer conn.Close()
				br := bufio.NewReader(conn)
				for pb.Next() {
					if _, err := io.WriteString(conn, request); err != nil {
						b.Error(err)
						return
					}
					res, err := http.ReadResponse(br, nil)
					if err != nil || res.StatusCode != 200 {
						b.Errorf("%v, %v", res, err)
						return
					}
					if _, err := io.Copy(io.Discard, res.Body); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
		})
	}
}
