package simulate

import (
	"encoding/json"
	"net/http"

	"github.com/weirproxy/weir/dialect/profile"
)

// failure is a refusal, before a profile gives it its shape.
type failure struct {
	status  int
	param   string
	message string
	code    string // OpenAI's, "" for none
}

func badRequest(param, message string) *failure {
	return &failure{status: http.StatusBadRequest, param: param, message: message}
}

// vllmTypes are vLLM's names of errors (entrypoints/serve/exception_handling).
var vllmTypes = map[int]string{
	http.StatusBadRequest:          "BadRequestError",
	http.StatusNotFound:            "NotFoundError",
	http.StatusMethodNotAllowed:    "MethodNotAllowedError",
	http.StatusUnprocessableEntity: "UnprocessableEntityError",
	http.StatusServiceUnavailable:  "ServiceUnavailableError",
	http.StatusInternalServerError: "InternalServerError",
}

// openAITypes are OpenAI's names of errors.
var openAITypes = map[int]string{
	http.StatusTooManyRequests: "rate_limit_error",
}

// render writes the failure as the profile's servers do.
func (f *failure) render(p *profile.Profile) []byte {
	var body any
	switch {
	case p.Name == "mindie":
		body = map[string]any{"error": f.message, "error_type": "validation"}
	case p.Name == "siliconflow":
		body = map[string]any{"code": 20012, "message": f.message, "data": nil}
	case !p.Provider && f.status == http.StatusUnauthorized:
		body = map[string]any{"error": "Unauthorized"}
	case p.Name == "sglang":
		body = map[string]any{"object": "error", "message": f.message, "type": vllmType(f.status), "param": orNull(f.param), "code": f.status}
	case !p.Provider:
		body = errorBody(f.message, vllmType(f.status), f.param, f.status)
	default:
		kind := openAITypes[f.status]
		if kind == "" {
			kind = "invalid_request_error"
			if f.status >= 500 {
				kind = "server_error"
			}
		}
		body = errorBody(f.message, kind, f.param, orNull(f.code))
	}
	text, _ := json.Marshal(body) // strings and numbers only: it cannot fail
	return text
}

func vllmType(status int) string {
	if kind := vllmTypes[status]; kind != "" {
		return kind
	}
	return http.StatusText(status)
}

func errorBody(message, kind, param string, code any) any {
	type inner struct {
		Message string `json:"message"`
		Type    string `json:"type"`
		Param   any    `json:"param"`
		Code    any    `json:"code"`
	}
	return map[string]any{"error": inner{message, kind, orNull(param), code}}
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}
