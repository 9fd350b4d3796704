package jsonscan

import "github.com/weirproxy/weir/internal/ai"

// Peek is the kind of the value that comes next.
func (s *Scanner) Peek() Kind {
	if s.failed || !s.space() {
		return Invalid
	}
	return kinds[s.body[s.pos]]
}

var kinds = [256]Kind{
	'{': Object, '[': Array, '"': String, 't': True, 'f': False, 'n': Null, '-': Number,
	'0': Number, '1': Number, '2': Number, '3': Number, '4': Number,
	'5': Number, '6': Number, '7': Number, '8': Number, '9': Number,
}

// space passes over white space; false at the end of the body.
func (s *Scanner) space() bool {
	for s.pos < len(s.body) {
		switch s.body[s.pos] {
		case ' ', '\n', '\r', '\t':
			s.pos++
		default:
			return true
		}
	}
	return false
}

// EnterObject enters the object that comes next; NextKey then walks over it.
func (s *Scanner) EnterObject() bool {
	if s.failed {
		return false
	}
	if !s.space() || s.body[s.pos] != '{' {
		return s.invalid("an object was expected")
	}
	return s.enter(true)
}

// EnterArray enters the array that comes next; NextItem then walks over it.
func (s *Scanner) EnterArray() bool {
	if s.failed {
		return false
	}
	if !s.space() || s.body[s.pos] != '[' {
		return s.invalid("an array was expected")
	}
	return s.enter(false)
}

func (s *Scanner) enter(object bool) bool {
	if len(s.frames) >= s.maxDepth {
		return s.fail(ai.ReasonTooDeep, s.pos, "the nesting is too deep")
	}
	s.pos++
	s.frames = append(s.frames, frame{object: object, first: len(s.keys.keys)})
	return true
}

// NextKey goes to the next member of the object that was entered last, and
// answers its key; the value must then be read or entered. It answers false
// behind the last one, having left the object.
func (s *Scanner) NextKey() (Value, bool) {
	if s.failed || !s.next('}') {
		return Value{}, false
	}
	if s.body[s.pos] != '"' {
		return Value{}, s.invalid("a key in double quotes was expected")
	}
	key, ok := s.str()
	if !ok || !s.addKey(key) {
		return Value{}, false
	}
	if !s.space() || s.body[s.pos] != ':' {
		return Value{}, s.invalid("a colon was expected")
	}
	s.pos++
	return key, true
}

// NextItem goes to the next item of the array that was entered last; the item
// must then be read or entered. It answers false behind the last one, having
// left the array.
func (s *Scanner) NextItem() bool { return !s.failed && s.next(']') }

// next goes to the next member of the open object or array and stands on its
// first byte. It answers false having left it, or with a fault.
func (s *Scanner) next(closing byte) bool {
	if len(s.frames) == 0 || s.frames[len(s.frames)-1].object != (closing == '}') {
		return s.invalid("no such object or array is open")
	}
	if !s.space() {
		return s.invalid("the body ends inside an object or array")
	}
	top := &s.frames[len(s.frames)-1]
	if s.body[s.pos] == closing {
		s.pos++
		s.leave()
		return false
	}
	if top.begun {
		if s.body[s.pos] != ',' {
			return s.invalid("a comma or a closing bracket was expected")
		}
		s.pos++
		if !s.space() {
			return s.invalid("the body ends inside an object or array")
		}
	}
	top.begun = true
	return true
}

func (s *Scanner) leave() {
	top := s.frames[len(s.frames)-1]
	s.frames = s.frames[:len(s.frames)-1]
	if top.object {
		s.keys.drop(top.first, top.hashed)
	}
}

// Value reads the value that comes next, with all that is in it.
func (s *Scanner) Value() Value {
	kind := s.Peek()
	v := Value{Kind: kind, Off: s.pos}
	ok := false
	switch kind {
	case Object, Array:
		depth := len(s.frames)
		ok = s.enter(kind == Object) && s.skipOpen(depth)
	case String:
		v, ok = s.str()
	case Number:
		ok = s.number()
	case True:
		ok = s.literal("true")
	case False:
		ok = s.literal("false")
	case Null:
		ok = s.literal("null")
	default:
		s.invalid("a value was expected")
	}
	if !ok {
		return Value{}
	}
	v.Len = s.pos - v.Off
	return v
}

// skipOpen reads on until no more than depth objects and arrays are open.
func (s *Scanner) skipOpen(depth int) bool {
	for len(s.frames) > depth && !s.failed {
		if s.frames[len(s.frames)-1].object {
			if _, ok := s.NextKey(); !ok {
				continue
			}
		} else if !s.NextItem() {
			continue
		}
		switch kind := s.Peek(); kind {
		case Object, Array:
			s.enter(kind == Object)
		default:
			s.Value()
		}
	}
	return !s.failed
}

// End checks that the value at the top was read and that nothing follows it.
func (s *Scanner) End() bool {
	if s.failed {
		return false
	}
	if len(s.frames) > 0 {
		return s.invalid("the body ends inside an object or array")
	}
	if s.space() {
		return s.invalid("nothing may follow the object")
	}
	return true
}
