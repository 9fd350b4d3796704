package usage

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/tidwall/gjson"

	"github.com/weirproxy/weir/internal/ai"
)

// Entry is what Envoy logged about one request.
type Entry struct {
	// ID is the decision's: from the dynamic metadata, or, for an answer of
	// weir's own, from the response header. Nil when weir was not asked.
	ID *ID
	// Digest stands for the id where there is none: the same entry read again
	// has the same digest.
	Digest ID

	Start    time.Time
	Duration time.Duration // until the client had the last byte, or was gone
	Status   int           // as the client saw it; 0 when it saw none
	Flags    string        // response flags, as "UF,URX"; "" for none
	Details  string        // response code details
	Bytes    int64         // of the response body sent to the client
	Attempts string        // ai.StateAttempts
	Usage    string        // ai.StateUsage
	Cluster  string        // the last upstream cluster
	Tries    int           // attempts that Envoy's router made; 0 when it was not reached
	// Bypass marks a request that reached a pool without a decision of weir's.
	Bypass bool
	// Periodic marks an entry of a request that still runs.
	Periodic bool
}

// ID is a decision's id: 16 bytes, written as 32 lower-case hex digits.
type ID [16]byte

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ParseID reads 32 hex digits.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != hex.EncodedLen(len(id)) {
		return ID{}, errBadID
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return ID{}, errBadID
	}
	return id, nil
}

var (
	errBadID   = errors.New("usage: an id is 32 hex digits")
	errGarbled = errors.New("usage: not an access log entry")
)

// maxText bounds what is kept of Envoy's free text (details), in bytes, and
// maxState what is read of filter state.
const (
	maxText  = 256
	maxState = 4096
)

// DecodeLine reads one line of Envoy's JSON access log. Values may be numbers or
// strings; null and absent ones are zero; unknown keys are passed over.
func DecodeLine(line []byte) (Entry, error) {
	if !gjson.ValidBytes(line) {
		return Entry{}, errGarbled
	}
	// Parsed in place: what is kept of it is copied by text.
	doc := gjson.Parse(unsafe.String(unsafe.SliceData(line), len(line)))
	if !doc.IsObject() {
		return Entry{}, errGarbled
	}
	var e Entry
	var id, rid, start string
	var millis int64
	ok := true
	doc.ForEach(func(k, v gjson.Result) bool {
		switch k.Str {
		case "id":
			id = text(v, 64)
		case "rid":
			rid = text(v, 64)
		case "start":
			start = text(v, 32)
		case "dur_us":
			e.Duration = time.Duration(count(v, math.MaxInt64/1000, &ok)) * time.Microsecond
		case "dur_ms":
			millis = count(v, math.MaxInt64/1_000_000, &ok)
		case "status":
			e.Status = int(count(v, 999, &ok))
		case "flags":
			e.Flags = text(v, maxText)
		case "details":
			e.Details = text(v, maxText)
		case "bytes":
			e.Bytes = count(v, math.MaxInt64, &ok)
		case "att":
			e.Attempts = text(v, maxState)
		case "use":
			e.Usage = text(v, maxState)
		case "cluster":
			e.Cluster = text(v, maxText)
		case "type":
			e.Periodic = v.Str == periodicType
		case "n":
			e.Tries = int(count(v, math.MaxInt32, &ok))
		}
		return true
	})
	if e.Duration == 0 { // the last byte never left: the client had gone, or the response was cut
		e.Duration = time.Duration(millis) * time.Millisecond
	}
	var err error
	if e.Start, err = parseSeconds(start); err != nil || !ok {
		return Entry{}, errGarbled
	}
	if err = e.identify(id, rid); err != nil {
		return Entry{}, errGarbled
	}
	if e.ID == nil {
		e.Digest = digest(line, "")
	}
	return e, nil
}

// periodicType is how Envoy names the entry of a request that still runs.
const periodicType = "DownstreamPeriodic"

// digest stands for the id of an entry that has none. The salt tells it from an
// equal one elsewhere.
func digest(entry []byte, salt string) ID {
	h := sha256.New()
	h.Write([]byte(salt))
	h.Write([]byte{0})
	h.Write(entry)
	return ID(h.Sum(nil)[:len(ID{})])
}

// identify sets the id, from the metadata and the response header. A request that
// reached a pool has its id in the metadata: without one it came past weir, and
// what a backend may say in the header counts for nothing. One that nobody sent
// anywhere came past weir too, and ended there: weir names a target or refuses. The
// gRPC log names no cluster where no endpoint was chosen.
func (e *Entry) identify(meta, header string) (err error) {
	switch {
	case meta != "":
	case e.Tries > 0 && (e.pool() != "" || e.Attempts != ""),
		(e.Cluster == ai.NoTargetCluster || e.Cluster == "") && e.Details == noUpstream && header == "":
		e.Bypass = true
		return nil
	}
	e.ID, err = entryID(meta, header)
	return err
}

// noUpstream are Envoy's details of a cluster without an endpoint.
const noUpstream = "no_healthy_upstream"

// isProbe tells of a probe of the doctor's, which is nobody's request. What has gone
// to a pool is none, whatever its id looks like.
func (e *Entry) isProbe() bool {
	return e.ID != nil && e.Tries == 0 && e.Attempts == "" && ai.IsProbeID(e.ID.String())
}

// entryID prefers the id of the metadata, which no backend can set, to that of
// the response header.
func entryID(meta, header string) (*ID, error) {
	for _, s := range [...]string{meta, header} {
		if s != "" {
			id, err := ParseID(s)
			return &id, err
		}
	}
	return nil, nil
}

// text is a string, cut to limit; Envoy writes "-" where it has none in places
// where null cannot stand.
func text(v gjson.Result, limit int) string {
	if v.Type == gjson.Null {
		return ""
	}
	s := v.String()
	if s == "-" {
		return ""
	}
	return clip(s, limit)
}

// clip cuts s to at most limit bytes of valid UTF-8.
func clip(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit]
	}
	return strings.Clone(strings.ToValidUTF8(s, ""))
}

// count is a number from 0 to limit, or a string that holds one.
func count(v gjson.Result, limit int64, ok *bool) int64 {
	s := v.Raw
	switch v.Type {
	case gjson.Null:
		return 0
	case gjson.String:
		if s = v.Str; s == "" || s == "-" {
			return 0
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > limit {
		*ok = false
		return 0
	}
	return n
}

// parseSeconds reads epoch seconds with up to six decimals.
func parseSeconds(s string) (time.Time, error) {
	whole, frac, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseUint(whole, 10, 40)
	if err != nil || len(frac) > 6 {
		return time.Time{}, errGarbled
	}
	usec, err := strconv.ParseUint((frac + "000000")[:6], 10, 32)
	if err != nil {
		return time.Time{}, errGarbled
	}
	return time.Unix(int64(sec), int64(usec)*1000).UTC(), nil
}

// attempt is one element of ai.StateAttempts.
type attempt struct {
	pool   string
	status int
	rest   int64 // for how many milliseconds the backend asks to be left alone
}

// maxRest bounds it, in milliseconds.
const maxRest = 3_600_000

// maxAttempts bounds how many attempts an event lists.
const maxAttempts = 32

// parseAttempts reads "pool:status;pool:status:rest". What is no attempt is passed
// over: an event with one attempt too few is better than none.
func parseAttempts(s string) []attempt {
	var list []attempt
	for part := range strings.SplitSeq(s, ";") {
		pool, code, _ := strings.Cut(part, ":")
		code, wait, asks := strings.Cut(code, ":")
		status, err := strconv.ParseUint(code, 10, 16)
		if err != nil || status > 999 || pool == "" || len(list) == maxAttempts {
			continue
		}
		a := attempt{pool: pool, status: int(status)}
		if rest, err := strconv.ParseInt(wait, 10, 64); asks && err == nil {
			a.rest = min(max(rest, 0), maxRest)
		}
		list = append(list, a)
	}
	return list
}

// hasFlag tells whether one of the response flags is set.
func (e *Entry) hasFlag(flags ...string) bool {
	for f := range strings.SplitSeq(e.Flags, ",") {
		for _, want := range flags {
			if f == want {
				return true
			}
		}
	}
	return false
}

// clientGone tells whether the client went before it had everything.
func (e *Entry) clientGone() bool {
	return e.hasFlag("DC", "DR") || strings.HasPrefix(e.Details, "downstream_remote_disconnect")
}

// pool is the pool of the last cluster.
func (e *Entry) pool() string {
	pool, ok := strings.CutPrefix(e.Cluster, ai.ClusterName(""))
	if !ok {
		return ""
	}
	return pool
}
