package redis

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
	"github.com/weirproxy/weir/limit/redis/redistest"
)

// One operation is a reservation, for which a caller waits, and its settlement. The
// server's own time for it is reported beside.
func BenchmarkReserveSettle(b *testing.B) {
	for _, name := range redistest.Available(b) {
		for _, n := range []int{1, 5, 20} {
			for _, keys := range []int{10, 100_000} {
				b.Run(fmt.Sprintf("%s/limits-%d/keys-%d", name, n, keys), func(b *testing.B) { benchmark(b, name, n, keys) })
			}
		}
	}
}

func benchmark(b *testing.B, name string, n, keys int) {
	server := redistest.Start(b, name)
	m := newManual(b, Options{Server: Server{Addresses: []string{server.Address()}}, Name: "bench", Replica: "one", Replicas: 1})
	m.mustOpen(b)
	limits := make([]*plan.Limit, n)
	for i := range limits {
		limits[i] = &plan.Limit{
			Name: fmt.Sprint("limit-", i), Unit: []plan.Unit{plan.UnitTokens, plan.UnitRequests, plan.UnitUSD}[i%3],
			Amount: 1 << 50, Window: time.Minute, PerKey: true,
		}
		if i%3 == 2 {
			limits[i].Window, limits[i].Period, limits[i].Zone = 0, plan.Month, time.UTC
		}
	}
	client := *m.client.Load()
	before := serverTime(b, client)
	var next atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := next.Add(1)
			r := request(fmt.Sprintf("%032x", i), 1000)
			r.Principal.Key = fmt.Sprint("application-key-", i%int64(keys))
			if !m.Reserve(limits, r).OK {
				b.Error(m.Ready())
				return
			}
			m.Settle(r.ID, []limit.Used{{Pool: "p", Cost: 5000}})
			if i%batch == 0 {
				m.flushSome(b.Context())
			}
		}
	})
	for m.flushSome(b.Context()) {
	}
	b.StopTimer()
	b.ReportMetric((serverTime(b, client)-before)*1e6/float64(b.N), "server-µs/op")
}

// serverTime is the processor time that the server has used, in seconds.
func serverTime(b *testing.B, c rueidis.Client) (s float64) {
	info, err := c.Do(b.Context(), c.B().Info().Section("cpu").Build()).ToString()
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(info) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), ":")
		if k == "used_cpu_sys" || k == "used_cpu_user" {
			f, err := strconv.ParseFloat(v, 64)
			if err != nil {
				b.Fatal(err)
			}
			s += f
		}
	}
	return s
}
