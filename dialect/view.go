// Package dialect is what all dialects share: one view of what a request gives a
// model to read. The strict scan of each dialect builds it, in its one pass over
// the body; token counting, PII and moderation read it. Nothing is copied: the
// view holds offsets, and the text is decoded when somebody asks for it.
package dialect

import "github.com/weirproxy/weir/dialect/jsonscan"

// View is what a request gives a model to read, in the order of the body.
type View struct {
	Body     []byte // as it was parsed; not a copy
	Fields   []Field
	Messages []Message
	Segments []Segment
	Media    []Media
	// TokenIDs is the number of tokens in prompts that came as token ids.
	TokenIDs int64
	// MediaLimits says that the request brings limits of its own for its media
	// (vLLM's mm_processor_kwargs and media_io_kwargs).
	MediaLimits bool
}

// Reset forgets what is in the view and keeps the memory.
func (v *View) Reset(body []byte) {
	*v = View{Body: body, Fields: v.Fields[:0], Messages: v.Messages[:0], Segments: v.Segments[:0], Media: v.Media[:0]}
}

// Field is a member of the body's object: where its name and its value stand.
type Field struct{ NameOff, NameLen, Off, Len int }

// Field is a field's name, without its quotes and with its escapes, and its value, as
// they stand in the body.
func (v *View) Field(f Field) (name, value []byte) {
	return v.Body[f.NameOff+1 : f.NameOff+f.NameLen-1], v.Body[f.Off : f.Off+f.Len]
}

// Message is one message of a chat.
type Message struct {
	Role Role
	// Segments[First:End] are its segments, and Media[FirstMedia:EndMedia] its
	// media. A body may have a message's fields in any order.
	First, End           int
	FirstMedia, EndMedia int
	ToolCalls            int
	// Parts says that the content is a list of parts.
	Parts bool
}

// Role is who speaks in a message.
type Role uint8

// The roles. RoleOther is any other, or none.
const (
	RoleOther Role = iota
	RoleSystem
	RoleDeveloper
	RoleUser
	RoleAssistant
	RoleTool
	RoleFunction
)

var roles = [...]string{"", "system", "developer", "user", "assistant", "tool", "function"}

func (r Role) String() string { return roles[r] }

// RoleOf is the role of that name.
func RoleOf(name []byte) Role {
	for r := RoleSystem; int(r) < len(roles); r++ {
		if string(name) == roles[r] {
			return r
		}
	}
	return RoleOther
}

// Kind is what a segment is in its request.
type Kind uint8

// The kinds of segments.
const (
	// Other is text or JSON in a field that weir does not know, which a backend
	// may show to its model.
	Other         Kind = iota
	Content            // what a message says, or one text part of it
	Reasoning          // what an assistant thought
	Refusal            // what an assistant refused with
	Name               // the name of who speaks
	RoleName           // a role that weir does not know
	ToolCallID         // of a call, or of the call that a result answers
	ToolCallName       // the function that an assistant called
	ToolArguments      // what it called it with: a string that holds JSON
	ToolCall           // a call that is not built as usual, as JSON
	Tool               // one tool or function that is offered, as JSON
	ToolChoice         // which one must be called, as JSON
	Schema             // the format that the answer must have, as JSON
	Prompt             // of a completion, or an input of an embedding
	Suffix             // what is to follow a completion
	FileName
	// Settings of the chat template, as vLLM and SGLang know them.
	ReasoningEffort
	ChatTemplate
	TemplateArguments // chat_template_kwargs
	Documents
	AddGenerationPrompt
	ContinueFinalMessage
	AddSpecialTokens
)

var kinds = [...]string{"other", "content", "reasoning", "refusal", "name", "role", "tool_call_id", "tool_call_name",
	"tool_arguments", "tool_call", "tool", "tool_choice", "schema", "prompt", "suffix", "file_name", "reasoning_effort",
	"chat_template", "chat_template_kwargs", "documents", "add_generation_prompt", "continue_final_message", "add_special_tokens"}

func (k Kind) String() string { return kinds[k] }

// NoMessage is the message of what stands outside of messages.
const NoMessage = -1

// Segment is a stretch of the body whose text a model may read.
type Segment struct {
	Off, Len int // bytes of the body; a string's quotes included
	// Text is the length in bytes of the text: of the decoded string, or of the
	// JSON as it stands; 0 for a number or boolean that is only a setting.
	Text int
	// Message is the index of its message, or NoMessage.
	Message int
	Kind    Kind
	// Raw says that the segment is JSON of any type, which a backend may render in
	// a way of its own. Otherwise it is one string.
	Raw bool
	// Escaped says that a string has escapes.
	Escaped bool
}

// End is the offset behind the segment.
func (s *Segment) End() int { return s.Off + s.Len }

// Bytes is the segment as it stands in the body: JSON, or a string without its
// quotes, with its escapes.
func (v *View) Bytes(s *Segment) []byte {
	if s.Raw {
		return v.Body[s.Off:s.End()]
	}
	return v.Body[s.Off+1 : s.End()-1]
}

// Decode is the text of the segment. It aliases the body where that has no
// escapes, and scratch, which it returns grown, where it has.
func (v *View) Decode(s *Segment, scratch []byte) (text, grown []byte) {
	if !s.Escaped || s.Raw {
		return v.Bytes(s), scratch
	}
	scratch = jsonscan.AppendText(scratch[:0], v.Body[s.Off:s.End()])
	return scratch, scratch
}

// MediaKind is what a medium is.
type MediaKind uint8

// The kinds of media.
const (
	Image MediaKind = iota
	Video
	Audio
	File
)

func (k MediaKind) String() string { return [...]string{"image", "video", "audio", "file"}[k] }

// Source is where a medium is.
type Source uint8

// The sources. Elsewhere is a file id, or nothing that weir knows.
const (
	Elsewhere Source = iota
	URL
	DataURI
	Base64
)

// Detail is how closely a model looks at an image.
type Detail uint8

// The details; DetailAuto is the backend's choice.
const (
	DetailAuto Detail = iota
	DetailLow
	DetailHigh
	DetailOriginal
)

// Media is an image, a video, a sound or a file among the content.
type Media struct {
	Kind   MediaKind
	Source Source
	Detail Detail
	// Off and Len are the string that holds it or names it, quotes included; zero
	// when there is none.
	Off, Len int
	Message  int // the index of its message, or NoMessage
	// Before is the index of the segment that it stands before.
	Before int
	// Format is the format of Base64 audio: wav, mp3 …; a string of the body with
	// its quotes, empty when there is none.
	Format []byte
}

// MediaBytes is the string that holds or names the medium, without its quotes, with
// its escapes.
func (v *View) MediaBytes(m *Media) []byte {
	if m.Len < 2 {
		return nil
	}
	return v.Body[m.Off+1 : m.Off+m.Len-1]
}
