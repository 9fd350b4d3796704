package limit

import (
	"math/bits"
	"sync"
)

// Outputs learns how long answers are, so that a ceiling that is far above them
// need not keep others out, and by how much a pool's answers pass theirs. It is
// safe for concurrent use.
type Outputs struct {
	mu       sync.RWMutex
	models   map[string]*lengths
	overruns map[string]*overrun
}

// NewOutputs makes one that has learnt nothing.
func NewOutputs() *Outputs {
	return &Outputs{models: map[string]*lengths{}, overruns: map[string]*overrun{}}
}

const (
	// enough is how many answers must be known before anything is said of a model.
	enough = 50
	// memory is how many answers weigh; older ones count for half, and so on.
	memory = 4096
	// A bucket is a sixteenth of the power of two that it lies in.
	subBuckets = 16
)

// lengths is a histogram of the output of one answer, in tokens.
type lengths struct {
	n     [20 * subBuckets]uint32
	total uint32
	most  int64 // 99 of 100 answers are not longer; 0 while too few are known
}

// slack is by how many tokens an answer may pass its ceiling without a word about its
// pool: a token of end, or two, says nothing of larger ceilings.
const slack = 8

type overrun struct {
	percent int64
	obeyed  int
}

// Observe takes in one answer of a model. One that was cut at its ceiling is
// taken to be twice as long, so that low ceilings do not lower themselves.
func (o *Outputs) Observe(model string, output int64, cut bool) {
	if output <= 0 {
		return
	}
	if cut {
		output *= 2
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	l := o.models[model]
	if l == nil {
		l = &lengths{}
		o.models[model] = l
	}
	l.observe(output)
}

func (l *lengths) observe(output int64) {
	l.n[bucket(output)]++
	if l.total++; l.total >= memory {
		l.total = 0
		for i := range l.n {
			l.n[i] /= 2
			l.total += l.n[i]
		}
	}
	if l.total < enough {
		return
	}
	left := l.total / 100
	for i := len(l.n) - 1; i >= 0; i-- {
		if n := l.n[i]; n > left {
			l.most = top(i)
			return
		}
		left -= l.n[i]
	}
}

// bucket is where a number of tokens is counted; top is the largest number there.
func bucket(n int64) int {
	if n < subBuckets {
		return int(n)
	}
	power := bits.Len64(uint64(n)) - 1 // at least 4
	sub := int(n>>(power-4)) - subBuckets
	return min((power-3)*subBuckets+sub, len(lengths{}.n)-1)
}

func top(i int) int64 {
	if i < subBuckets {
		return int64(i)
	}
	power, sub := i/subBuckets+3, i%subBuckets
	return int64(subBuckets+sub+1)<<(power-4) - 1
}

// Most is the length that 99 of 100 answers of the model do not pass; 0 when too
// few are known.
func (o *Outputs) Most(model string) int64 {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if l := o.models[model]; l != nil {
		return l.most
	}
	return 0
}

// Ended takes in that a pool's answers had so many tokens, and what ceiling they
// had been given together. A pool that keeps to its ceilings is trusted again,
// slowly.
func (o *Outputs) Ended(pool string, output, ceiling int64) {
	if ceiling <= 0 {
		return
	}
	o.mu.RLock()
	_, known := o.overruns[pool]
	o.mu.RUnlock()
	if !known && output <= ceiling+slack {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	v := o.overruns[pool]
	if v == nil {
		v = &overrun{}
		o.overruns[pool] = v
	}
	if output > ceiling+slack {
		percent := min(clamp(output-ceiling)*100/ceiling+1, maxOverrun)
		v.percent, v.obeyed = max(v.percent, percent), 0
		return
	}
	if v.obeyed++; v.obeyed >= 1000 {
		if v.percent, v.obeyed = v.percent/2, 0; v.percent == 0 {
			delete(o.overruns, pool)
		}
	}
}

// Overrun is by how many per cent the pool's answers have passed their ceiling.
func (o *Outputs) Overrun(pool string) int64 {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if v := o.overruns[pool]; v != nil {
		return v.percent
	}
	return 0
}

// Overruns calls fn for each pool that has passed a ceiling lately.
func (o *Outputs) Overruns(fn func(pool string, percent int64)) {
	o.mu.RLock()
	percent := make(map[string]int64, len(o.overruns))
	for pool, v := range o.overruns {
		percent[pool] = v.percent
	}
	o.mu.RUnlock()
	for pool, p := range percent {
		fn(pool, p)
	}
}
