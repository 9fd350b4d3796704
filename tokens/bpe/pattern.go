package bpe

import "unicode/utf8"

// Pattern cuts texts into pieces as the regular expression of a vocabulary does.
// Within a piece bytes are merged, across pieces never.
type Pattern struct {
	// Name is the pattern's name, by which patterns are told apart.
	Name string
	// next is the end of the piece that begins at i, which is within text.
	next func(text []byte, i int) int
	// source is the regular expression that it stands for, in the notation of
	// Hugging Face's tokenizers.
	source string
}

// The patterns. In each, the alternatives are tried in their order:
//
//   - Cl100k: a contraction; a word with at most one other character before it; up to
//     three digits; signs with at most one space before and line breaks behind; white
//     space up to the last line break; white space but its last character, which
//     goes with what follows; white space.
//     Llama 3 and GLM 4 have it too.
//   - Qwen2 takes digits one by one; Qwen36 counts marks as letters, too.
//   - O200k cuts words where small letters end and capitals begin, counts marks as
//     letters, and has the contraction behind the word.
//   - Tekken is O200k without contractions, digit by digit.
//   - DeepSeek first cuts out digits, three at a time, then runs of Chinese
//     characters and kana, and then cuts all of these by a pattern of its own.
var (
	Cl100k = Pattern{"cl100k", func(text []byte, i int) int { return classic(text, i, letter, 3) },
		`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`}
	Qwen2 = Pattern{"qwen2", func(text []byte, i int) int { return classic(text, i, letter, 1) },
		`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`}
	Qwen36 = Pattern{"qwen3.6", func(text []byte, i int) int { return classic(text, i, letter|mark, 1) },
		`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`}
	O200k = Pattern{"o200k", func(text []byte, i int) int { return cased(text, i, 3, true) },
		`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`}
	Tekken = Pattern{"tekken", func(text []byte, i int) int { return cased(text, i, 1, false) },
		`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`}
	DeepSeek = Pattern{"deepseek", deepSeek,
		`\p{N}{1,3}` + "\n" + `[一-龥぀-ゟ゠-ヿ]+` + "\n" + "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}
)

// classic is the pattern of cl100k_base and what came of it. Words are runs of the
// given classes; digits is how many digits go together.
func classic(text []byte, i int, of class, digits int) int {
	k, n := at(text, i)
	switch {
	case k&of != 0:
		return run(text, i+n, of, 0)
	case k&number != 0:
		return numbers(text, i+n, digits)
	case k&newline == 0:
		if text[i] == '\'' {
			if end := contraction(text, i); end > i {
				return end
			}
		}
		if next, _ := at(text, i+n); next&of != 0 {
			return run(text, i+n, of, 0)
		}
		if end := signs(text, i, space|number|of); end > i {
			return lineBreaks(text, end, false)
		}
	}
	return white(text, i, 0)
}

// cased is the pattern of o200k_base and what came of it.
func cased(text []byte, i, digits int, contractions bool) int {
	k, n := at(text, i)
	if k&number != 0 {
		return numbers(text, i+n, digits)
	}
	if k&newline == 0 {
		if end := casedWord(text, i, k, n); end > i {
			if contractions && end < len(text) && text[end] == '\'' {
				return contraction(text, end)
			}
			return end
		}
		if end := signs(text, i, space|letter|number); end > i {
			return lineBreaks(text, end, true)
		}
	}
	return white(text, i, 0)
}

const (
	head = upper | caseless | mark // what a word begins with
	tail = lower | caseless | mark // what it goes on with
)

// casedWord is the end of the word at i, the character of class k and length n; i
// when there is none. A word is any number of head characters and then tail ones,
// or else, when no tail one comes, head ones alone. One character that is no letter,
// number or line break may stand before it; a mark is such a one, too, but also a
// word by itself.
func casedWord(text []byte, i int, k class, n int) int {
	start := i
	if k&letter == 0 {
		start += n
	}
	end, whole := headTail(text, start)
	if whole {
		return end
	}
	if k&mark != 0 { // the mark as the beginning of the word
		if e, whole := headTail(text, i); whole {
			return e
		}
	}
	if end > start {
		return end
	}
	return i
}

// headTail is the end of head* tail+ from i on, if whole; of head+ otherwise.
func headTail(text []byte, i int) (end int, whole bool) {
	// Most words: small letters, or one capital before them.
	last := -1 // the end of the last character in head that is tail too
	for i < len(text) {
		k, n := at(text, i)
		if k&head == 0 {
			if k&lower != 0 {
				return run(text, i+n, tail, 0), true
			}
			break
		}
		i += n
		if k&tail != 0 {
			last = i
		}
	}
	if last >= 0 {
		return last, true
	}
	return i, false
}

// deepSeek is the pattern of DeepSeek V3: three expressions, each of which cuts what
// the one before has left, and what that has cut out, too. So Chinese characters and
// kana are cut by the last one among themselves, all else by itself.
func deepSeek(text []byte, i int) int {
	k, n := at(text, i)
	if k&number != 0 {
		return numbers(text, i+n, 3)
	}
	stop := number | eastern
	if k&eastern != 0 {
		stop = number | western
	}
	if end := deepSeekMatch(text, i, k, n, stop); end > i {
		return end
	}
	// What no alternative matches is a piece, up to where one does.
	for {
		i += n
		if k, n = at(text, i); n == 0 || k&stop != 0 || deepSeekMatch(text, i, k, n, stop) > i {
			return i
		}
	}
}

// deepSeekMatch is the end of the match at i, the character of class k and length
// n; i when there is none. Characters of the classes in stop end the text.
func deepSeekMatch(text []byte, i int, k class, n int, stop class) int {
	if c := text[i]; c < utf8.RuneSelf && k&sign != 0 {
		if end := i + 1; end < len(text) && isLatin(text[end]) {
			for end < len(text) && isLatin(text[end]) {
				end++
			}
			return end
		}
	}
	switch {
	case k&(letter|mark) != 0:
		return run(text, i+n, letter|mark, stop)
	case k&(newline|sign) == 0:
		if next, _ := at(text, i+n); next&(letter|mark) != 0 && next&stop == 0 {
			return run(text, i+n, letter|mark, stop)
		}
	}
	start := i
	if text[i] == ' ' {
		start++
	}
	if end := run(text, start, sign, stop); end > start {
		if stop&western != 0 {
			return end
		}
		return lineBreaks(text, end, false)
	}
	if k&space != 0 {
		return white(text, i, stop)
	}
	return i
}

func isLatin(c byte) bool { return c|0x20-'a' < 26 }

// numbers is the end of a run of numbers from i on, one before it counted in.
func numbers(text []byte, i, most int) int {
	for range most - 1 {
		k, n := at(text, i)
		if k&number == 0 {
			break
		}
		i += n
	}
	return i
}

// signs is the end of a run of characters at i that are of none of the classes, a
// space before it counted in; i when there is none.
func signs(text []byte, i int, not class) int {
	start := i
	if text[i] == ' ' {
		start++
	}
	end := start
	for end < len(text) {
		k, n := at(text, end)
		if k&not != 0 {
			break
		}
		end += n
	}
	if end == start {
		return i
	}
	return end
}

// lineBreaks is the end of the line breaks from i on, and of slashes among them.
func lineBreaks(text []byte, i int, slashes bool) int {
	for i < len(text) && (text[i] == '\n' || text[i] == '\r' || slashes && text[i] == '/') {
		i++
	}
	return i
}

// white is the end of the piece that the white space at i is: up to its last line
// break; or else all of it at the end of the text, or before a character of the
// classes that end it; or else all but its last character, if it has more than one.
func white(text []byte, i int, ends class) int {
	last, afterBreak := i, i
	end := i
	for end < len(text) {
		k, n := at(text, end)
		if k&space == 0 {
			if afterBreak == i && k&ends == 0 && last > i {
				return last
			}
			break
		}
		last = end
		end += n
		if k&newline != 0 {
			afterBreak = end
		}
	}
	if afterBreak > i {
		return afterBreak
	}
	return end
}

// contraction is the end of 's, 't, 're, 've, 'm, 'll or 'd at i, in any case; i
// when there is none. The long s (U+017F) is an s in another case.
func contraction(text []byte, i int) int {
	rest := text[i+1:]
	if len(rest) == 0 {
		return i
	}
	switch rest[0] | 0x20 {
	case 's', 't', 'm', 'd':
		return i + 2
	case 'r', 'v':
		if len(rest) > 1 && rest[1]|0x20 == 'e' {
			return i + 3
		}
	case 'l':
		if len(rest) > 1 && rest[1]|0x20 == 'l' {
			return i + 3
		}
	}
	if len(rest) > 1 && rest[0] == 0xC5 && rest[1] == 0xBF {
		return i + 3
	}
	return i
}
