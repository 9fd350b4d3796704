package bridge

// ReplaceRequestHead puts head in the place of the first n bytes of the request
// body, in a body callback. The rest of the body stays in the host: a body of
// 20 MB whose first bytes change does not pass through the filter's memory.
// n and head must not be empty.
func ReplaceRequestHead(n int, head []byte) error { return replaceRequestHead(n, head) }
