package conf

import (
	"strconv"
	"strings"
)

// place is a position in a text, both from 1; col counts bytes.
type place struct{ line, col int }

// sep joins the parts of a path; it cannot be part of a TOML key that passed the parser (control character).
const sep = "\x00"

func join(prefix, part string) string {
	if prefix == "" {
		return part
	}
	return prefix + sep + part
}

func element(prefix string, i int) string { return join(prefix, "#"+strconv.Itoa(i)) }

// places finds where each key and value of a TOML text stands. The text must have passed the TOML parser: the scanner
// knows only as much syntax as it needs to find its way (strings, arrays, inline tables, comments) and stops quietly when lost.
// Keys are paths joined by sep, array elements "#0"; the value of a key is found under path+sep+"=".
func places(text string) map[string]place {
	s := &scanner{text: text, found: map[string]place{}, tables: map[string]int{}, lineStart: []int{0}}
	for i := range text {
		if text[i] == '\n' {
			s.lineStart = append(s.lineStart, i+1)
		}
	}
	s.document()
	return s.found
}

type scanner struct {
	text      string
	at        int
	found     map[string]place
	tables    map[string]int // arrays of tables: how many seen
	lineStart []int
}

func (s *scanner) document() {
	prefix := ""
	for s.blank(); s.at < len(s.text); s.blank() {
		start := s.at
		if s.peek() == '[' {
			prefix = s.header()
		} else {
			s.pair(prefix)
		}
		if s.at == start {
			return
		}
	}
}

// header reads [a.b] or [[a.b]] and returns the path of what follows.
func (s *scanner) header() string {
	s.at++
	array := s.peek() == '['
	if array {
		s.at++
	}
	s.space()
	start := s.at
	path := ""
	parts := s.key()
	for i, part := range parts {
		path = join(path, part)
		s.record(path, start)
		last := i == len(parts)-1
		switch n := s.tables[path]; {
		case array && last:
			s.tables[path]++
			path = element(path, n)
			s.record(path, start)
		case n > 0:
			path = element(path, n-1)
		}
	}
	for s.at < len(s.text) && s.text[s.at] != '\n' && s.text[s.at] != '#' {
		s.at++ // closing brackets
	}
	return path
}

// pair reads key = value.
func (s *scanner) pair(prefix string) {
	start := s.at
	path := prefix
	for _, part := range s.key() {
		path = join(path, part)
		s.record(path, start)
	}
	s.space()
	if s.peek() != '=' {
		return
	}
	s.at++
	s.space()
	s.value(path)
}

func (s *scanner) value(path string) {
	s.record(join(path, "="), s.at)
	switch rest := s.text[s.at:]; {
	case strings.HasPrefix(rest, `"""`):
		s.until(`"""`, true)
	case strings.HasPrefix(rest, `'''`):
		s.until(`'''`, false)
	case strings.HasPrefix(rest, `"`):
		s.until(`"`, true)
	case strings.HasPrefix(rest, `'`):
		s.until(`'`, false)
	case strings.HasPrefix(rest, `[`):
		s.at++
		for i := 0; ; i++ {
			if s.blank(); s.peek() == ']' || s.at >= len(s.text) {
				s.at++
				return
			}
			s.record(element(path, i), s.at)
			s.value(element(path, i))
			if s.blank(); s.peek() == ',' {
				s.at++
			}
		}
	case strings.HasPrefix(rest, `{`):
		s.at++
		for {
			start := s.at
			if s.blank(); s.peek() == '}' || s.at >= len(s.text) {
				s.at++
				return
			}
			s.pair(path)
			if s.blank(); s.peek() == ',' {
				s.at++
			}
			if s.at == start {
				return
			}
		}
	default:
		start := s.at
		for s.at < len(s.text) && !strings.ContainsRune(",]}#\n", rune(s.text[s.at])) {
			s.at++
		}
		if s.at == start {
			s.at = len(s.text)
		}
	}
}

// until skips a string that starts here with quote.
func (s *scanner) until(quote string, escapes bool) {
	s.at += len(quote)
	for s.at < len(s.text) {
		if escapes && s.text[s.at] == '\\' {
			s.at += 2
			continue
		}
		if strings.HasPrefix(s.text[s.at:], quote) {
			s.at += len(quote)
			// A multi-line string may end in up to two quotes of its own.
			for len(quote) == 3 && s.peek() == quote[0] {
				s.at++
			}
			return
		}
		s.at++
	}
}

// key reads a dotted key; quoted parts keep their dots.
func (s *scanner) key() []string {
	var parts []string
	for s.at < len(s.text) {
		s.space()
		switch c := s.peek(); {
		case c == '"' || c == '\'':
			start := s.at
			s.until(string(c), c == '"')
			part := s.text[start:min(s.at, len(s.text))]
			if unquoted, err := strconv.Unquote(part); err == nil && c == '"' {
				part = unquoted
			} else {
				part = strings.Trim(part, string(c))
			}
			parts = append(parts, part)
		default:
			start := s.at
			for s.at < len(s.text) && !strings.ContainsRune(" \t.=]\r\n", rune(s.text[s.at])) {
				s.at++
			}
			parts = append(parts, s.text[start:s.at])
		}
		s.space()
		if s.peek() != '.' {
			return parts
		}
		s.at++
	}
	return parts
}

func (s *scanner) record(path string, at int) {
	if _, ok := s.found[path]; ok {
		return
	}
	line := 0
	for lo, hi := 0, len(s.lineStart); lo < hi; {
		if mid := (lo + hi) / 2; s.lineStart[mid] <= at {
			line, lo = mid, mid+1
		} else {
			hi = mid
		}
	}
	s.found[path] = place{line: line + 1, col: at - s.lineStart[line] + 1}
}

func (s *scanner) peek() byte {
	if s.at < len(s.text) {
		return s.text[s.at]
	}
	return 0
}

func (s *scanner) space() {
	for s.peek() == ' ' || s.peek() == '\t' {
		s.at++
	}
}

// blank skips white space, line ends and comments.
func (s *scanner) blank() {
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case ' ', '\t', '\r', '\n':
			s.at++
		case '#':
			for s.at < len(s.text) && s.text[s.at] != '\n' {
				s.at++
			}
		default:
			return
		}
	}
}
