package rule

import (
	"maps"
	"math"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
)

// Caller is a kind of caller that there can be: every key of it has these roles,
// and may have any others beside.
type Caller struct {
	Team, Application string
	Roles             []string
}

// space is every request that rules can tell apart, as far as it is worth trying
// them: each dimension is a fact, or some that go together. What no dimension
// sets is unknown. It holds more requests than there can be rather than fewer.
type space struct {
	dimensions []dimension
	unknown    []*cel.AttributePatternType // whatever the dimensions set
	names      []string                    // of all facts
	declared   map[string]bool             // header facts
}

// dimension is one fact with the values that stand for all.
type dimension struct {
	sets    []string // names of the facts
	options []option
}

// option sets the facts of a dimension.
type option func(*point)

// point is one request.
type point struct {
	facts   map[string]any
	headers map[string]string // those sent
}

// space is the space of what the rules use.
func (c *Compiler) space(u *uses, w World) *space {
	s := &space{declared: c.headers}
	for _, v := range c.env.Variables() {
		s.names = append(s.names, v.Name())
	}
	for _, name := range []string{"stream", "tools", "vision", "audio", "batch"} {
		if u.facts[name] {
			s.add(name, false, true)
		}
	}
	if u.facts["kind"] {
		s.add("kind", "chat", "completion", "embedding")
	}
	if u.facts["model"] && w.Model != "" {
		s.add("model", w.Model)
	}
	if u.facts["reasoning_effort"] {
		s.add("reasoning_effort", anys(append([]string{""}, efforts...))...)
	}
	for _, name := range []string{"input_tokens", "max_output_tokens", "thinking_budget"} {
		if u.facts[name] && !u.opaque[name] {
			s.add(name, around(u.ints[name])...)
		}
	}
	if u.facts["key"] && !u.opaque["key"] {
		s.add("key", anys(beside(u.strings["key"]))...)
	}
	s.addCallers(u, w)
	s.addHeaders(u)
	return s
}

func (s *space) add(name string, values ...any) {
	d := dimension{sets: []string{name}}
	for _, v := range values {
		d.options = append(d.options, func(p *point) { p.facts[name] = v })
	}
	s.dimensions = append(s.dimensions, d)
}

// around are the counts that stand for all: the constants and their neighbours.
func around(constants []int64) []any {
	set := map[int64]bool{0: true}
	for _, n := range constants {
		for _, at := range []int64{n, n - 1, n + 1} {
			if at >= 0 && (n != math.MinInt64 || at == n) { // n-1 may wrap
				set[at] = true
			}
		}
	}
	return anys(slices.Sorted(maps.Keys(set)))
}

// beside are the constants, and a text that is none of them.
func beside(constants []string) []string {
	texts := slices.Clone(constants)
	slices.Sort(texts)
	return append(slices.Compact(texts), strings.Join(constants, "")+"\x00")
}

func anys[T any](values []T) []any {
	out := make([]any, len(values))
	for i, v := range values {
		out[i] = v
	}
	return out
}

// maxAskedRoles is of how many roles every combination is tried.
const maxAskedRoles = 8

// addCallers adds who calls: team, application and roles go together.
func (s *space) addCallers(u *uses, w World) {
	if len(w.Callers) == 0 || !u.facts["team"] && !u.facts["application"] && !u.facts["roles"] {
		return
	}
	asked := slices.Clone(u.strings["roles"])
	slices.Sort(asked)
	asked = slices.Compact(asked)
	d := dimension{sets: []string{"team", "application", "roles"}}
	if u.opaque["roles"] || len(asked) > maxAskedRoles {
		d.sets, asked = d.sets[:2], nil // roles are unknown
	}
	withRoles := len(d.sets) == 3
	seen := map[string]bool{}
	for _, caller := range w.Callers {
		class := u.class("team", caller.Team) + "\x01" + u.class("application", caller.Application)
		for _, roles := range subsets(asked, caller.Roles) {
			same := class + "\x01" + strings.Join(roles, "\x02")
			if seen[same] || len(asked) > 0 && !w.granted(asked, roles) {
				continue
			}
			seen[same] = true
			d.options = append(d.options, func(p *point) {
				p.facts["team"], p.facts["application"] = caller.Team, caller.Application
				if withRoles {
					p.facts["roles"] = roles
				}
			})
		}
	}
	s.dimensions = append(s.dimensions, d)
}

// class is the same for values of a fact that no rule tells apart.
func (u *uses) class(name, value string) string {
	switch {
	case !u.facts[name]:
		return ""
	case u.opaque[name] || slices.Contains(u.strings[name], value):
		return value
	}
	return "\x00"
}

// granted tells whether a caller with none of the asked roles but these can have
// a role that permits the model.
func (w *World) granted(asked, roles []string) bool {
	return len(w.Granting) == 0 || slices.ContainsFunc(w.Granting, func(g string) bool {
		return !slices.Contains(asked, g) || slices.Contains(roles, g)
	})
}

// subsets are the sets of roles that hold all of those that a caller has anyway,
// as far as they are asked for.
func subsets(asked, always []string) [][]string {
	all := [][]string{{}}
	for _, role := range asked {
		n := len(all)
		for i := range n {
			with := append(slices.Clone(all[i]), role)
			if slices.Contains(always, role) {
				all[i] = with
			} else {
				all = append(all, with)
			}
		}
	}
	return all
}

// addHeaders adds each header by itself. One whose value is used in other ways
// than by comparison is unknown.
func (s *space) addHeaders(u *uses) {
	if !u.facts["headers"] || u.opaque["headers"] {
		return
	}
	d := dimension{sets: []string{"headers"}, options: []option{func(*point) {}}}
	s.dimensions = append(s.dimensions, d) // the map itself is known
	for _, name := range slices.Sorted(maps.Keys(u.headers)) {
		h := u.headers[name]
		if h.opaque {
			s.unknown = append(s.unknown, cel.AttributePattern("headers").QualString(name))
			continue
		}
		d := dimension{options: []option{func(*point) {}}} // not sent
		for _, value := range beside(append([]string{""}, h.values...)) {
			d.options = append(d.options, func(p *point) { p.headers[name] = value })
		}
		s.dimensions = append(s.dimensions, d)
	}
}

// limit makes facts unknown, those of the most values first, until the space has
// at most so many points.
func (s *space) limit(most int) {
	for {
		size, largest := 1, 0
		for i, d := range s.dimensions {
			size = min(size*max(1, len(d.options)), most+1)
			if len(d.options) > len(s.dimensions[largest].options) {
				largest = i
			}
		}
		if size <= most {
			return
		}
		if d := s.dimensions[largest]; len(d.sets) == 0 { // one header: then all of them
			s.dimensions = slices.DeleteFunc(s.dimensions, func(d dimension) bool { return len(d.sets) == 0 || d.sets[0] == "headers" })
			continue
		}
		s.dimensions = slices.Delete(s.dimensions, largest, largest+1)
	}
}

// each calls f with every point until it returns false, and tells whether it has
// called it with all.
func (s *space) each(f func(cel.PartialActivation) bool) bool {
	patterns := slices.Clone(s.unknown)
	for _, name := range s.names {
		if !slices.ContainsFunc(s.dimensions, func(d dimension) bool { return slices.Contains(d.sets, name) }) {
			patterns = append(patterns, cel.AttributePattern(name))
		}
	}
	at := make([]int, len(s.dimensions))
	for {
		p := point{facts: map[string]any{}, headers: map[string]string{}}
		for i, d := range s.dimensions {
			if len(d.options) == 0 {
				return true // there is no such request
			}
			d.options[at[i]](&p)
		}
		p.facts["headers"] = &headers{sent: p.headers, declared: s.declared}
		vars, err := cel.PartialVars(p.facts, patterns...)
		if err != nil || !f(vars) {
			return false
		}
		i := 0
		for ; i < len(at); i++ {
			if at[i]++; at[i] < len(s.dimensions[i].options) {
				break
			}
			at[i] = 0
		}
		if i == len(at) {
			return true
		}
	}
}
