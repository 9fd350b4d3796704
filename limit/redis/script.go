package redis

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"time"

	"crypto/sha1" //nolint:gosec // what Redis knows scripts by
	"encoding/hex"

	"github.com/redis/rueidis"
)

//go:embed lua/common.lua
var commonLua string

//go:embed lua/reserve.lua
var reserveLua string

//go:embed lua/settle.lua
var settleLua string

//go:embed lua/beat.lua
var beatLua string

//go:embed lua/boot.lua
var bootLua string

//go:embed lua/records.lua
var recordsLua string

//go:embed lua/part.lua
var partLua string

//go:embed lua/also.lua
var alsoLua string

//go:embed lua/accept.lua
var acceptLua string

//go:embed lua/forget.lua
var forgetLua string

//go:embed lua/reset.lua
var resetLua string

//go:embed lua/read.lua
var readLua string

//go:embed lua/take.lua
var takeLua string

//go:embed lua/entries.lua
var entriesLua string

var (
	reserveScript = newScript(commonLua + reserveLua)
	settleScript  = newScript(commonLua + settleLua)
	beatScript    = newScript(commonLua + beatLua)
	bootScript    = newScript(commonLua + bootLua)
	partScript    = newScript(commonLua + recordsLua + partLua)
	alsoScript    = newScript(commonLua + recordsLua + alsoLua)
	acceptScript  = newScript(commonLua + acceptLua)
	forgetScript  = newScript(commonLua + forgetLua)
	resetScript   = newScript(commonLua + resetLua)
	readScript    = newScript(commonLua + readLua)
	takeScript    = newScript(commonLua + takeLua)
	entriesScript = newScript(entriesLua)
)

// script is one that the server runs as one step.
type script struct{ text, sha string }

func newScript(text string) *script {
	sum := sha1.Sum([]byte(text)) //nolint:gosec // what Redis knows scripts by
	return &script{text: text, sha: hex.EncodeToString(sum[:])}
}

// run runs the script, and gives it to a server that does not know it.
func (s *script) run(ctx context.Context, c rueidis.Client, key string, args []string) rueidis.RedisResult {
	res := c.Do(ctx, s.build(c, key, args))
	if err, ok := rueidis.IsRedisErr(res.Error()); ok && err.IsNoScript() {
		res = c.Do(ctx, c.B().Eval().Script(s.text).Numkeys(1).Key(key).Arg(args...).Build())
	}
	return res
}

func (s *script) build(c rueidis.Client, key string, args []string) rueidis.Completed {
	return c.B().Evalsha().Sha1(s.sha).Numkeys(1).Key(key).Arg(args...).Build()
}

// headArgs is how many arguments each script of the ledger begins with.
const headArgs = 7

// head begins the arguments of a script. fresh names the next generation; it is used
// by nobody else.
func (l *Ledger) head(v *view, args []string) []string {
	return append(args, l.opt.clock, l.mark.String(), l.boot, number(v.acknowledged.Load())+" "+number(l.last.Load()), v.gen,
		l.fresh(v), strconv.Itoa(l.opt.Replicas))
}

// fresh is a name for the generation after the one that is known: it does not come
// twice, as every generation begins with a process of which it has the name.
func (l *Ledger) fresh(v *view) string {
	sum := sha1.Sum([]byte(l.boot + "\x00" + v.gen)) //nolint:gosec // told apart, not kept secret
	return hex.EncodeToString(sum[:8])
}

// reply is what a script answered.
type reply struct {
	status string
	gen    string
	now    int64 // µs since 1970, by the server's clock
	rest   []rueidis.RedisMessage
}

// ask runs a script of the ledger. An error means that nobody knows whether it ran.
func (l *Ledger) ask(ctx context.Context, s *script, args []string) (reply, error) {
	c := l.client.Load()
	if c == nil {
		return reply{}, errAway
	}
	v := l.view.Load()
	ctx, cancel := context.WithTimeout(ctx, l.opt.Timeout)
	defer cancel()
	began := time.Now()
	full := l.head(v, make([]string, 0, headArgs+len(args)))
	rep, err := l.hear(v, s.run(ctx, *c, l.meta, append(full, args...)))
	l.metrics.asked(time.Since(began), err)
	return rep, err
}

// hear takes in an answer.
func (l *Ledger) hear(v *view, res rueidis.RedisResult) (reply, error) {
	list, err := res.ToArray()
	if err != nil {
		return reply{}, err
	}
	if len(list) < 4 {
		return reply{}, fmt.Errorf("the limit store answered %d values", len(list))
	}
	rep := reply{rest: list[4:]}
	if rep.status, err = list[0].ToString(); err != nil {
		return reply{}, err
	}
	if rep.now, err = list[1].AsInt64(); err != nil {
		return reply{}, err
	}
	if rep.gen, err = list[2].ToString(); err != nil {
		return reply{}, err
	}
	seq, err := list[3].AsInt64()
	if err != nil {
		return reply{}, err
	}
	if rep.gen == v.gen {
		for {
			known := v.acknowledged.Load()
			if seq <= known || rep.status != statusOK || v.acknowledged.CompareAndSwap(known, seq) {
				break
			}
		}
	}
	for {
		known := l.last.Load()
		if rep.now <= known || l.last.CompareAndSwap(known, rep.now) {
			break
		}
	}
	l.noteTime(rep.now)
	return rep, nil
}

// What scripts answer first.
const (
	statusOK         = "ok"
	statusDone       = "done"       // the replica's part is known
	statusRebuilding = "rebuilding" // not all replicas' parts are
	statusJoin       = "join"       // the replica has to say what it knows
	statusJoined     = "joined"     // another process of the replica has
	statusMoved      = "moved"      // there is another generation
	statusFenced     = "fenced"     // another process has the replica's place
	statusClash      = "clash"      // another replica has the mark
	statusFull       = "full"       // there is no place
	statusTaken      = "taken"      // by another process than was named
	statusStale      = "stale"      // the periods were of another time
	statusVoid       = "void"       // the reservation was given up
)

// integer reads a number of an answer; what is none is an error of the script.
func integer(m *rueidis.RedisMessage) (int64, error) { return m.AsInt64() }
