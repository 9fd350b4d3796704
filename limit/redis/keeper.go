package redis

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
)

// phase is where the replica stands with the server. It only tells; the server
// decides.
type phase struct {
	state state
	why   string
}

type state int

const (
	starting   state = iota // not reached yet
	away                    // cannot be reached, or does not answer as it should
	rebuilding              // it has lost counts, and not all replicas have said what they know
	shut                    // the replica has no place: nothing may be admitted
	open
)

// pot tells whether the replica may admit from its own pot.
func (p *phase) pot() bool { return p.state != shut }

func (l *Ledger) ready() bool { return l.phase.Load().state == open }

// Ready tells why nothing is reserved at the server; nil when it is.
func (l *Ledger) Ready() error {
	p := l.phase.Load()
	if p.state == open {
		return nil
	}
	return errors.New(p.why)
}

// become changes the phase and says so once.
func (l *Ledger) become(s state, why string) {
	old := l.phase.Swap(&phase{s, why})
	if old.state == s && old.why == why {
		return
	}
	switch {
	case s == open:
		l.opt.Logger.Info("limits are counted at the limit store", "replica", l.opt.Replica)
		select {
		case l.flush <- struct{}{}:
		default:
		}
	case old.state == starting && s == rebuilding:
		l.opt.Logger.Info("limits: "+why, "replica", l.opt.Replica)
	default:
		l.opt.Logger.Error("limits: "+why, "replica", l.opt.Replica)
	}
	if onShut := l.onShut.Load(); onShut != nil && (s == shut) != (old.state == shut) {
		(*onShut)(s == shut)
	}
}

// OnShut has fn called when this process may admit nothing, because another one has
// its place or there is none for it, and when it may again.
func (l *Ledger) OnShut(fn func(shut bool)) {
	l.onShut.Store(&fn)
	fn(l.phase.Load().state == shut)
}

// lost takes in that the server did not answer: from now on nobody waits for it,
// until the keeper has reached it again.
func (l *Ledger) lost(err error) {
	switch {
	case errors.Is(err, context.Canceled):
		return // this process ends
	case errors.Is(err, errAway):
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("the limit store does not answer within %s", l.opt.Timeout)
	default:
		err = fmt.Errorf("the limit store fails: %w", err)
	}
	if p := l.phase.Load(); p.state == open || p.state == rebuilding || p.state == starting || p.state == away {
		l.become(away, err.Error())
	}
	l.poke()
}

// turn takes in that the server knows better where the replica stands.
func (l *Ledger) turn(rep reply) {
	switch rep.status {
	case statusFenced:
		l.become(shut, fmt.Sprintf("another process runs as replica %q: this one admits nothing any more; give each replica a name of its own", l.opt.Replica))
	case statusVoid, statusStale:
		return // of this request only
	default:
		if l.phase.Load().state == open {
			l.become(rebuilding, "the limit store has lost counts: they are put together from what the replicas know")
		}
		l.poke()
	}
}

func (l *Ledger) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// How often the keeper looks: while all is well, and otherwise.
const (
	beatEvery  = time.Second
	retryEvery = 100 * time.Millisecond
)

// Run keeps the replica's place in the deployment and tells the server what ended,
// until ctx ends. What had to be restored must have been by then.
func (l *Ledger) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { l.flushLoop(ctx) })
	wg.Go(func() { l.sendLoop(ctx) })
	k := &keeper{l: l}
	for ctx.Err() == nil {
		k.step(ctx)
		wait := retryEvery
		if l.ready() {
			wait = beatEvery
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-l.wake:
			if !l.ready() { // it was asked a moment ago
				select {
				case <-ctx.Done():
				case <-time.After(retryEvery / 10):
				}
			}
		}
		t.Stop()
	}
	wg.Wait()
	l.lastWords()
	return nil
}

// lastWords tells the server of what ended at the end.
func (l *Ledger) lastWords() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for l.ready() && l.flushSome(ctx) {
	}
	for sent, more := true, true; sent && more; {
		sent, more = l.sendSome(ctx)
	}
	if c := l.client.Load(); c != nil {
		(*c).Close()
	}
}

// keeper is what Run alone knows.
type keeper struct {
	l       *Ledger
	placed  bool // this process has the replica's place
	checked bool // the server's settings are safe
	tries   int
	renewed time.Time
	swept   time.Time
	resets  string // the last reset that was read
	behind  bool   // the server's clock is, and it was said
}

// step does what is next: reach the server, take the replica's place, say what it
// knows, or say that it lives.
func (k *keeper) step(ctx context.Context) {
	l := k.l
	if l.phase.Load().state == shut && k.placed {
		return // another process has the place: only a restart helps
	}
	if l.client.Load() == nil {
		if err := l.dial(); err != nil {
			l.lost(err)
			return
		}
	}
	if !k.checked {
		if err := CheckServer(ctx, *l.client.Load()); err != nil {
			l.lost(err)
			return
		}
		k.checked = true
	}
	if !k.placed {
		k.takePlace(ctx)
		return
	}
	k.beat(ctx)
}

// takePlace makes this process the replica's.
func (k *keeper) takePlace(ctx context.Context) {
	l := k.l
	rep, err := l.ask(ctx, bootScript, []string{l.opt.Replica, ""})
	if err == nil && rep.status == statusTaken && len(rep.rest) == 1 {
		var before string
		if before, err = rep.rest[0].ToString(); err == nil {
			rep, err = l.ask(ctx, bootScript, []string{l.opt.Replica, before})
		}
	}
	if err != nil {
		l.lost(err)
		return
	}
	switch rep.status {
	case statusOK, statusRebuilding:
		l.view.Store(&view{gen: rep.gen})
		if err := k.reconcile(ctx, rep.gen); err != nil {
			l.lost(err)
			return
		}
		k.place()
		k.beat(ctx)
	case statusJoin:
		k.contribute(ctx, rep.gen)
	case statusClash:
		k.clash()
	}
}

// place notes that the replica belongs to the deployment: from now on it may use
// its pot.
func (k *keeper) place() {
	k.placed = true
	k.l.mu.Lock()
	k.l.stood = true
	k.l.ended = map[string][]string{}
	k.l.mu.Unlock()
}

func (k *keeper) clash() {
	k.l.become(shut, fmt.Sprintf("the name of replica %q has the mark of another one's: give it another name", k.l.opt.Replica))
}

// beat says that the replica lives.
func (k *keeper) beat(ctx context.Context) {
	l := k.l
	rep, err := l.ask(ctx, beatScript, append([]string{number(l.opt.Hold.Microseconds())}, k.renewals()...))
	if err != nil {
		l.lost(err)
		return
	}
	facts := pairs(rep.rest)
	k.noteMembers(facts)
	switch rep.status {
	case statusOK:
		if why := l.tooMany(facts); why != "" {
			l.become(shut, why)
			k.placed = false
			return
		}
		if err := l.introduce(ctx); err != nil {
			l.lost(err)
			return
		}
		l.become(open, "")
		k.noteClock(rep.now, facts["clock"])
		k.housekeeping(ctx, rep.gen)
	case statusRebuilding:
		if rep.gen != l.view.Load().gen { // the answer that this replica has joined was lost
			l.view.Store(&view{gen: rep.gen})
		}
		l.become(rebuilding, fmt.Sprintf("the limit store has lost counts (%s): %s of %d replicas have said what they know; if one is gone for good, see weir limits recover", reasons[facts["why"]], facts["members"], l.opt.Replicas))
	case statusJoin:
		k.contribute(ctx, rep.gen)
	case statusMoved:
		l.view.Store(&view{gen: rep.gen})
	case statusFenced:
		l.turn(rep)
	}
}

// reasons are why a generation began.
var reasons = map[string]string{
	"empty":       "nothing was there",
	"server":      "another server answers, or it was started again",
	"behind":      "writes that it had acknowledged are missing",
	"time":        "its clock is behind what it was",
	"interrupted": "a replica was started again while it said what it knows",
	"asked":       "somebody asked for it",
}

// noteClock warns when the server's clock is behind: until it has caught up, nothing
// that was used gets free again.
func (k *keeper) noteClock(now int64, clock string) {
	us, err := strconv.ParseInt(clock, 10, 64)
	behind := time.Duration(now-us) * time.Microsecond
	switch {
	case err != nil || behind < time.Minute:
		k.behind = false
	case !k.behind:
		k.behind = true
		k.l.opt.Logger.Error("limits: the limit store's clock is behind what it was: time stands still for windows and budgets until it is right", "by", behind)
	}
}

// tooMany tells that more replicas have a place than the configuration counts: their
// pots would be more than the allowance.
func (l *Ledger) tooMany(facts map[string]string) string {
	var names []string
	for k, v := range facts {
		if strings.HasPrefix(k, "name:") {
			names = append(names, v)
		}
	}
	if len(names) <= l.opt.Replicas {
		return ""
	}
	slices.Sort(names)
	return fmt.Sprintf("limit_store.replicas is %d, and %s have a place: give the place of one that is gone away with weir limits forget-replica", l.opt.Replicas, strings.Join(names, ", "))
}

func pairs(rest []rueidis.RedisMessage) map[string]string {
	m := map[string]string{}
	for i := 0; i+1 < len(rest); i += 2 {
		k, err := rest[i].ToString()
		if err != nil {
			continue
		}
		if v, err := rest[i+1].ToString(); err == nil {
			m[k] = v
		}
	}
	return m
}

// noteMembers keeps who the replicas are.
func (k *keeper) noteMembers(facts map[string]string) {
	members := map[Mark]string{}
	for key, name := range facts {
		if hex, ok := strings.CutPrefix(key, "name:"); ok && MarkOf(name).String() == hex {
			members[MarkOf(name)] = name
		}
	}
	if old := k.l.members.Load(); len(members) > 0 && !maps.Equal(*old, members) {
		k.l.members.Store(&members)
	}
}

// maxRenewals bounds how many reservations one beat asks more time for.
const maxRenewals = 2000

// renewals are the ids of reservations whose time is half over: their replica lives.
func (k *keeper) renewals() []string {
	l := k.l
	now := l.opt.Now()
	if now.Sub(k.renewed) < l.opt.Hold/16 && !k.renewed.IsZero() || !l.ready() {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var ids []string
	for id, res := range l.open {
		if res.due.Sub(now) < l.opt.Hold/2 {
			res.due = now.Add(l.opt.Hold)
			if ids = append(ids, id); len(ids) == maxRenewals {
				return ids
			}
		}
	}
	k.renewed = now
	return ids
}

// reconcile settles what the server holds for an earlier process of this replica
// that is known to have ended, and at what it holds what nobody knows of.
func (k *keeper) reconcile(ctx context.Context, gen string) error {
	l := k.l
	c := *l.client.Load()
	key := strings.TrimSuffix(l.meta, "meta") + gen + ":open"
	var cursor uint64
	for {
		ctx, cancel := context.WithTimeout(ctx, 4*l.opt.Timeout)
		page, err := c.Do(ctx, c.B().Hscan().Key(key).Cursor(cursor).Match("*"+l.mark.String()).Count(1000).Build()).AsScanEntry()
		cancel()
		if err != nil {
			return err
		}
		for i := 0; i+1 < len(page.Elements); i += 2 {
			k.settleLeft(page.Elements[i])
		}
		if cursor = page.Cursor; cursor == 0 {
			return nil
		}
	}
}

// settleLeft settles a reservation of which this process does not know.
func (k *keeper) settleLeft(id string) {
	l := k.l
	l.mu.Lock()
	_, open := l.open[id]
	used, known := l.ended[id]
	l.mu.Unlock()
	if open {
		return
	}
	if !known && l.opt.Lookup != nil {
		if limits, r, u, ok := l.opt.Lookup(id); ok {
			used = pairsOf(l.demands(limits, &r), u)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.enqueue(operation{id: id, how: settle, rest: used})
}

// contribute says what the replica knows, in pieces.
func (k *keeper) contribute(ctx context.Context, gen string) {
	l := k.l
	l.become(rebuilding, "the limit store does not know this replica's part of the counts yet")
	// Nobody reserves from here on; who was about to has noted it when this is had.
	l.asking.Lock()
	records := l.truth()
	l.asking.Unlock()
	l.view.Store(&view{gen: gen})
	k.tries++
	try := fmt.Sprintf("%s-%d", l.boot, k.tries)
	pieces := chunk(records)
	for i, piece := range pieces {
		last := i == len(pieces)-1
		rep, err := l.askPatiently(ctx, append([]string{l.opt.Replica, try, number(int64(i)), bit(last)}, piece...))
		if err != nil {
			l.lost(err)
			return
		}
		switch rep.status {
		case statusOK:
			continue
		case statusDone:
			l.view.Store(&view{gen: rep.gen})
			l.metrics.rebuilds.Inc()
			k.place()
			k.beat(ctx)
		case statusJoined:
			k.placed = false // its place is to be taken instead
		case statusClash:
			k.clash()
		case statusFull:
			l.become(shut, fmt.Sprintf("all %d places of limit_store.replicas are taken, and none is replica %q's: give the place of one that is gone away with weir limits forget-replica, or raise the number", l.opt.Replicas, l.opt.Replica))
			k.placed = false
		}
		return
	}
}

// askPatiently sends a piece again until it is known that it has arrived, or that
// the server is away.
func (l *Ledger) askPatiently(ctx context.Context, args []string) (reply, error) {
	rep, err := l.ask(ctx, partScript, args)
	for range 3 {
		if err == nil || ctx.Err() != nil {
			break
		}
		rep, err = l.ask(ctx, partScript, args)
	}
	return rep, err
}

// pieceArgs is how many arguments a piece has at most, unless a record is larger.
const pieceArgs = 2000

// chunk joins records to pieces; there is at least one.
func chunk(records [][]string) [][]string {
	pieces := [][]string{nil}
	for _, r := range records {
		last := len(pieces) - 1
		if len(pieces[last]) > 0 && len(pieces[last])+len(r) > pieceArgs {
			pieces, last = append(pieces, nil), last+1
		}
		pieces[last] = append(pieces[last], r...)
	}
	return pieces
}

// truth is what the replica knows, as records for the script. What it knows by its
// own clock is told by the server's: what is left of a window stays the same.
func (l *Ledger) truth() [][]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var records [][]string
	here, there := l.opt.Now(), l.time()
	shift := there.Sub(l.own.Now())
	for _, c := range l.own.Counts() {
		if l.unsaid[c.Limit] {
			continue
		}
		if r := countRecord(&c, there, shift); r != nil {
			records = append(records, r)
		}
	}
	for id, res := range l.open {
		if l.own.Holds(id) {
			res.due = here.Add(l.opt.Hold)
			records = append(records, reservationRecord(id, res, l.opt.Hold, here, there))
		}
	}
	return records
}

// countRecord is what was used of one count; nil when its zone is no more.
func countRecord(c *limit.Count, now time.Time, shift time.Duration) []string {
	lim := c.PlanLimit()
	if lim == nil {
		return nil
	}
	id := identify(lim, c.Scope).String()
	_, end, next := periodOf(lim, now)
	broken := int64(0)
	if !c.Broken.IsZero() {
		broken = c.Broken.UnixMicro()
	}
	r := []string{"C", id, number(windowOf(lim)), number(end), number(next), number(broken), number(int64(len(c.Slots)))}
	for _, s := range c.Slots {
		at := s.End
		if lim.Period == "" {
			at = at.Add(shift)
		}
		r = append(r, number(ceilMicros(at)), number(s.N))
	}
	return r
}

// ceilMicros rounds up, so that nothing leaves early.
func ceilMicros(t time.Time) int64 { return t.Add(time.Microsecond - 1).UnixMicro() }

func reservationRecord(id string, res *reservation, lasts time.Duration, here, there time.Time) []string {
	r := []string{"R", id, number(lasts.Microseconds()), number(int64(len(res.holds)))}
	for i := range res.holds {
		h := &res.holds[i]
		_, end, next := periodOf(h.share, there)
		at := there.Add(-max(here.Sub(h.at), 0))
		r = append(r, h.id, kind(h.share.Unit), number(h.n), number(slotEnd(h.share, at)), number(windowOf(h.share)), number(end), number(next),
			number(h.share.Amount), bit(h.share.Breaker), alertsOf(h.share))
	}
	return r
}

// slotEnd is the end of the slot in which a request counts that came at that time.
func slotEnd(lim *plan.Limit, at time.Time) int64 {
	if _, end, _ := periodOf(lim, at); end > 0 {
		return end
	}
	width := max(windowOf(lim)/limit.SlotsPerWindow, 1)
	us := ceilMicros(at)
	return us - us%width + width
}
