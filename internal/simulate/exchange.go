package simulate

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const maxBody = 256 << 20 // bytes

// exchange is one request on its way.
type exchange struct {
	s       *Server
	w       http.ResponseWriter
	r       *http.Request
	body    string
	fault   *Fault
	rec     *Request // nil when nothing is recorded
	start   time.Time
	status  int
	outcome Outcome
}

// exchange answers all but the control endpoints.
func (s *Server) exchange(w http.ResponseWriter, r *http.Request) {
	rt, known := s.routes[r.URL.Path]
	x := &exchange{s: s, w: w, r: r, fault: noFault, start: time.Now(), outcome: Completed}
	switch {
	case known && r.Method != rt.method && !(rt.method == http.MethodGet && r.Method == http.MethodHead):
		w.Header().Set("Allow", rt.method)
		x.fail(&failure{status: http.StatusMethodNotAllowed, message: "Method Not Allowed"})
	case known && !rt.model:
		rt.handle(x)
	default:
		x.rec = s.log.begin(r, s.opts.Now())
		x.serve(rt, known)
		s.log.update(x.rec, func(rec *Request) { rec.Status, rec.Outcome = x.status, x.outcome })
	}
}

// serve answers a request that is recorded and that faults apply to.
func (x *exchange) serve(rt route, known bool) {
	if err := x.readBody(); err != nil {
		if errors.As(err, new(*http.MaxBytesError)) {
			x.fail(&failure{status: http.StatusRequestEntityTooLarge, message: "Request Entity Too Large"})
			return
		}
		x.fail(badRequest("", "the body breaks off"))
		x.outcome = Aborted
		return
	}
	x.s.log.setBody(x.rec, x.body)
	if known {
		x.fault = x.s.faults.pick(x.r, x.body)
	}
	for name, value := range x.fault.Headers {
		x.w.Header().Set(name, value)
	}
	switch {
	case x.fault.DelayMS != 0 && !x.wait(milliseconds(x.fault.DelayMS)):
	case x.fault.Reset && x.fault.CutAfterChunks == nil:
		x.cut()
	case !x.authorized():
		x.fail(&failure{status: http.StatusUnauthorized, message: "Incorrect API key provided.", code: "invalid_api_key"})
	case x.fault.Status != 0:
		x.faultStatus()
	case !known:
		x.fail(&failure{status: http.StatusNotFound, message: "Not Found"})
	default:
		rt.handle(x)
	}
}

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

const keptBuffer = 4 << 20 // bytes; a larger buffer is not kept

func release(b *bytes.Buffer) {
	if b.Cap() <= keptBuffer {
		buffers.Put(b)
	}
}

func (x *exchange) readBody() error {
	if x.r.Body == http.NoBody {
		return nil
	}
	b := buffers.Get().(*bytes.Buffer)
	defer release(b)
	b.Reset()
	if n := x.r.ContentLength; n > 0 {
		b.Grow(int(min(n, keptBuffer-bytes.MinRead)) + bytes.MinRead)
	}
	body := x.r.Body
	if x.r.ContentLength < 0 || x.r.ContentLength > maxBody {
		body = http.MaxBytesReader(x.w, body, maxBody)
	}
	_, err := b.ReadFrom(body)
	x.body = b.String()
	return err
}

// authorized checks the key on the paths that the profile guards: vLLM leaves
// those open that are not under the base path.
func (x *exchange) authorized() bool {
	key := x.s.opts.APIKey
	if key == "" || !x.s.kind.Provider && !strings.HasPrefix(x.r.URL.Path, x.s.opts.BasePath+"/") {
		return true
	}
	token, ok := strings.CutPrefix(x.r.Header.Get("Authorization"), "Bearer ")
	return ok && subtle.ConstantTimeCompare([]byte(token), []byte(key)) == 1
}

// jsonBody checks the content type, as FastAPI does.
func (x *exchange) jsonBody() bool {
	kind, _, _ := mime.ParseMediaType(x.r.Header.Get("Content-Type"))
	if kind == "application/json" {
		return true
	}
	x.fail(&failure{status: http.StatusUnsupportedMediaType, message: "Unsupported Media Type: Only 'application/json' is allowed"})
	return false
}

// serves checks that the model exists here.
func (x *exchange) serves(model string) bool {
	o := &x.s.opts
	if o.Model == "" || model == "" && x.s.vllm() || model == o.Model {
		return true
	}
	for _, alias := range o.Aliases {
		if model == alias {
			return true
		}
	}
	x.fail(&failure{
		status: http.StatusNotFound, param: "model", code: "model_not_found",
		message: fmt.Sprintf("The model `%s` does not exist.", model),
	})
	return false
}

// head sends the response headers; length is that of the body, -1 when it is
// a stream.
func (x *exchange) head(status int, contentType string, length int) {
	h := x.w.Header()
	set := func(name, value string) {
		if _, ok := h[name]; !ok { // a fault's headers go first
			h[name] = []string{value}
		}
	}
	set("Content-Type", contentType)
	if length >= 0 {
		set("Content-Length", strconv.Itoa(length))
	}
	if x.s.vllm() {
		set("Server", "uvicorn")
	}
	if x.s.opts.Name != "" {
		set("X-Simulator", x.s.opts.Name)
	}
	x.status = status
	x.s.log.update(x.rec, func(rec *Request) { rec.Status = status })
	x.w.WriteHeader(status)
}

// reply sends a whole answer.
func (x *exchange) reply(status int, contentType string, body []byte) {
	x.head(status, contentType, len(body))
	if _, err := x.w.Write(body); err != nil && !errors.Is(err, http.ErrBodyNotAllowed) {
		x.outcome = Aborted
	}
}

func (x *exchange) fail(f *failure) {
	x.reply(f.status, "application/json", f.render(x.s.kind))
}

// faultStatus answers with the status and the body of the fault.
func (x *exchange) faultStatus() {
	if !x.wait(milliseconds(x.fault.StallBeforeHeadersMS)) {
		return
	}
	if x.fault.Body != "" {
		x.reply(x.fault.Status, "application/json", []byte(x.fault.Body))
		return
	}
	x.fail(&failure{status: x.fault.Status, message: "simulated: " + http.StatusText(x.fault.Status)})
}

// wait passes time; a negative one passes when the client goes. It returns
// false, and notes it, when the client went.
func (x *exchange) wait(d time.Duration) bool {
	if d == 0 {
		return true
	}
	var done <-chan time.Time // never, when d is negative
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		done = timer.C
	}
	select {
	case <-done:
		return true
	case <-x.r.Context().Done():
		x.outcome = Aborted
		return false
	}
}

// cut closes the connection in the middle of things.
func (x *exchange) cut() {
	x.outcome = Cut
	conn, _, err := http.NewResponseController(x.w).Hijack()
	if err != nil { // HTTP/2, which this package does not serve itself
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok && x.fault.Reset {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
