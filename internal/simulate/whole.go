package simulate

import (
	"bytes"
	"net/http"
	"strconv"
	"time"
)

// whole sends the answer as one JSON body.
func (j *job) whole() {
	tokens := 0
	for i := range j.choices {
		tokens += j.choices[i].length
	}
	pace := j.s.opts.FirstToken + time.Duration(max(j.longest-1, 0))*j.delay()
	if j.delay() < 0 {
		pace = -1
	}
	if !j.wait(pace) || !j.wait(milliseconds(j.fault.StallBeforeHeadersMS)) {
		return
	}
	buf := buffers.Get().(*bytes.Buffer)
	defer release(buf)
	buf.Reset()
	body := j.appendWhole(buf.AvailableBuffer(), tokens)
	buf.Write(body) // so that the buffer grows; where it fits, it is there already
	if j.fault.Garbage != "" {
		body = []byte(j.fault.Garbage)
	}
	j.first = time.Now()
	if j.fault.StallFirstTokenMS != 0 || j.fault.CutAfterChunks != nil {
		j.wholeInParts(body, tokens)
		return
	}
	if j.reply(http.StatusOK, "application/json", body); j.outcome == Completed {
		j.note(tokens)
		j.complete()
	}
}

// wholeInParts sends the headers, waits, and sends the body or one half of it.
func (j *job) wholeInParts(body []byte, tokens int) {
	j.head(http.StatusOK, "application/json", len(body))
	rc := http.NewResponseController(j.w)
	if rc.Flush() != nil || !j.wait(milliseconds(j.fault.StallFirstTokenMS)) {
		j.outcome = Aborted
		return
	}
	if j.fault.CutAfterChunks != nil {
		_, _ = j.w.Write(body[:len(body)/2])
		_ = rc.Flush()
		j.cut()
		return
	}
	if _, err := j.w.Write(body); err != nil {
		j.outcome = Aborted
		return
	}
	j.note(tokens)
	j.complete()
}

func (j *job) appendWhole(b []byte, tokens int) []byte {
	b = append(b, j.prefix...)
	for i := range j.choices {
		if i > 0 {
			b = append(b, ',')
		}
		b = j.appendChoice(b, i)
	}
	b = append(b, `],"system_fingerprint":null`...)
	if j.fault.Usage != "missing" {
		b = j.appendUsage(append(b, `,"usage":`...), tokens)
	}
	return append(b, '}')
}

func (j *job) appendChoice(b []byte, i int) []byte {
	c := &j.choices[i]
	b = append(b, `{"index":`...)
	b = strconv.AppendInt(b, int64(i), 10)
	b = append(b, ',')
	if c.call == nil {
		b = append(b, j.shape.beforeText...)
		b = c.appendText(b)
		b = append(b, j.shape.afterText...)
	} else {
		b = append(b, `"message":{"role":"assistant","content":null,"tool_calls":[{"id":"`...)
		b = append(b, c.call.id...)
		b = append(b, `","type":"function","function":{"name":"`...)
		b = append(b, escape(c.call.name)...)
		b = append(b, `","arguments":"`...)
		b = c.appendText(b)
		b = append(b, `"}}]}`...)
	}
	b = append(b, `,"logprobs":null,"finish_reason":"`...)
	b = append(b, c.finish...)
	return append(b, `"}`...)
}

func (c *choice) appendText(b []byte) []byte {
	for t := range c.length {
		b = append(b, c.piece(t)...)
	}
	return b
}
