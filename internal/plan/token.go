package plan

import (
	"fmt"
	"hash/crc32"
	"io"
	"strings"
)

// TokenPattern is the form of the API keys that weir makes, for secret scanners.
const TokenPattern = `weir_[0-9A-Za-z]{38}`

// MaxToken bounds what is hashed of a caller that is not known yet. A longer key
// opens nothing.
const MaxToken = 4096

const (
	tokenPrefix = "weir_"
	tokenRandom = 32 // base 62 digits: 190 bits
	tokenCheck  = 6  // base 62 digits of a CRC-32
	tokenLength = len(tokenPrefix) + tokenRandom + tokenCheck
	base62      = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// NewToken makes an API key: weir_, 32 random characters, and 6 that are the
// CRC-32 (IEEE) of what stands before them, in base 62 with leading zeros.
func NewToken(random io.Reader) (string, error) {
	token := append(make([]byte, 0, tokenLength), tokenPrefix...)
	var b [2 * tokenRandom]byte
	for len(token) < tokenLength-tokenCheck {
		if _, err := io.ReadFull(random, b[:]); err != nil {
			return "", fmt.Errorf("a new key: %w", err)
		}
		for _, c := range b {
			// 248 is 4 × 62: what is above would make some characters likelier.
			if c < 248 && len(token) < tokenLength-tokenCheck {
				token = append(token, base62[c%62])
			}
		}
	}
	check := checksum(string(token))
	return string(append(token, check[:]...)), nil
}

// Malformed tells that the token says it is weir's and cannot be: mistyped, cut
// off, or made up. Tokens that do not begin with weir_ are operators' own, whose
// form weir does not know.
func Malformed(token string) bool {
	if !strings.HasPrefix(token, tokenPrefix) {
		return len(token) > MaxToken
	}
	if len(token) != tokenLength {
		return true
	}
	for _, c := range []byte(token[len(tokenPrefix):]) {
		if c-'0' > 9 && c-'A' > 25 && c-'a' > 25 { // bytes wrap around
			return true
		}
	}
	body, check := token[:tokenLength-tokenCheck], checksum(token[:tokenLength-tokenCheck])
	return token[len(body):] != string(check[:])
}

// checksum walks the table itself: the library's function wants bytes on the heap.
func checksum(text string) (digits [tokenCheck]byte) {
	sum := ^uint32(0)
	for i := range len(text) {
		sum = crc32.IEEETable[byte(sum)^text[i]] ^ sum>>8
	}
	sum = ^sum
	for i := tokenCheck - 1; i >= 0; i-- {
		digits[i] = base62[sum%62]
		sum /= 62
	}
	return digits
}
