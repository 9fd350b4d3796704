package quota

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
)

// running are requests by their end.
type running []struct {
	end  time.Time
	id   string
	used int64
}

func (r running) Len() int           { return len(r) }
func (r running) Less(i, j int) bool { return r[i].end.Before(r[j].end) }
func (r running) Swap(i, j int)      { r[i], r[j] = r[j], r[i] }
func (r *running) Push(x any)        { *r = append(*r, x.(running)[0]) }
func (r *running) Pop() any {
	old := *r
	last := old[len(old)-1]
	*r = old[:len(old)-1]
	return last
}

// Clients that ask for 32,000 tokens and use 400 are not kept out by what nobody
// uses: of the requests that settled use alone would have admitted, few are refused,
// and few answers are cut.
func TestGenerousCeilings(t *testing.T) {
	const (
		asked, mean = 32_000, 400
		in          = 200
		minutes     = 20
	)
	l := &plan.Limit{Name: "t", Unit: plan.UnitTokens, Amount: 1_000_000, Window: time.Minute}
	body := fmt.Sprintf(`{"model":"m","max_tokens":%d,"messages":[]}`, asked)
	for _, tc := range []struct {
		name    string
		floor   int64 // min_output_tokens
		learns  bool
		perSec  float64
		refused float64 // at most, of those that settled use would have admitted
		cut     float64
	}{
		{name: "whole ceilings, 54 per cent used", floor: asked, perSec: 15, refused: 1},
		{name: "whole ceilings, 72 per cent used", floor: asked, perSec: 20, refused: 1},
		{name: "lowered, 54 per cent used", floor: 256, learns: true, perSec: 15, refused: 0.01, cut: 0.02},
		{name: "lowered, 72 per cent used", floor: 256, learns: true, perSec: 20, refused: 0.05, cut: 0.06},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(7, 9))
			now := time.Unix(1_800_000_000, 0)
			book := limit.New(func() time.Time { return now })
			ideal := limit.New(func() time.Time { return now })
			outputs := limit.NewOutputs()
			s := New(book, outputs)
			var open running
			var all, fits, refused, admitted, cut int
			settle := func(until time.Time) {
				for len(open) > 0 && !open[0].end.After(until) {
					r := heap.Pop(&open).(struct {
						end  time.Time
						id   string
						used int64
					})
					now = r.end
					book.Settle(r.id, []limit.Used{{Pool: "p", Usage: ai.Usage{Input: in, Output: r.used}}})
				}
			}
			for at := now; at.Before(time.Unix(1_800_000_000+60*minutes, 0)); all++ {
				at = at.Add(time.Duration(rng.ExpFloat64() * float64(time.Second) / tc.perSec))
				settle(at)
				now = at
				id := fmt.Sprint(all)
				used := min(1+int64(rng.ExpFloat64()*mean), asked)
				// What settled use would have admitted: one that knows what will be used.
				known := &limit.Request{ID: id, Targets: []limit.Target{{Pool: "p", Input: in}}, Options: []limit.Option{{Output: used}}}
				would := ideal.Reserve([]*plan.Limit{l}, known).OK
				ideal.Settle(id, []limit.Used{{Pool: "p", Usage: ai.Usage{Input: in, Output: used}}})

				ex := exchange(t, ai.KindChat, body, exact(in), 0, l)
				ex.In.ID, ex.Decision.Model.MinOutputTokens = id, tc.floor
				ex.Decision.Targets = []*plan.Pool{{Name: "p"}}
				v, err := s.Request(t.Context(), ex)
				if err != nil {
					t.Fatal(err)
				}
				if would {
					fits++
				}
				if v.Stops() {
					if would {
						refused++
					}
					continue
				}
				admitted++
				got := min(used, ex.Reserved.MaxOutput)
				if got < used {
					cut++
				}
				if tc.learns {
					outputs.Observe("m", got, got < used)
				}
				heap.Push(&open, running{{end: at.Add(time.Duration(got) * 20 * time.Millisecond), id: id, used: got}})
			}
			t.Logf("%d requests, %d would fit by settled use, %d admitted, %d (%.2f %%) refused of those that would fit, %d (%.2f %%) cut",
				all, fits, admitted, refused, 100*float64(refused)/float64(fits), cut, 100*float64(cut)/float64(max(admitted, 1)))
			if part := float64(refused) / float64(fits); part > tc.refused {
				t.Errorf("%.3f refused of those that would fit", part)
			}
			if part := float64(cut) / float64(admitted); part > tc.cut {
				t.Errorf("%.3f cut", part)
			}
		})
	}
}
