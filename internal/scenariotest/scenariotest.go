package scenariotest

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// Story is one file's world: what its commands do, and where they print. After runs behind each command, unless it is nil.
type Story struct {
	Commands map[string]func(Args)
	After    func(Args)
	Out      *strings.Builder
}

// Run replays testdata/*.txt, of which there must be atLeast, each in a world that begin makes. A command that prints nothing is "ok".
// Rewrite the expected answers with -rewrite, and read the diff.
func Run(t *testing.T, atLeast int, begin func(*testing.T) Story) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < atLeast {
		t.Fatalf("%d scenario files, want %d: %v", len(files), atLeast, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			s := begin(t)
			datadriven.RunTest(t, file, func(t *testing.T, td *datadriven.TestData) string {
				run, ok := s.Commands[td.Cmd]
				if !ok {
					td.Fatalf(t, "unknown command %q", td.Cmd)
				}
				s.Out.Reset()
				a := Args{t, td}
				run(a)
				if s.After != nil {
					s.After(a)
				}
				if s.Out.Len() == 0 {
					return "ok\n"
				}
				return s.Out.String()
			})
		})
	}
}

// Args are the words of a command, in the file's order: bare ones, and KEY=VALUE or KEY=(VALUE, VALUE). What cannot be read fails the test
// with the file's line.
type Args struct {
	t    *testing.T
	data *datadriven.TestData
}

// Fatalf fails the test, with the command's place in the file.
func (a Args) Fatalf(format string, args ...any) {
	a.t.Helper()
	a.data.Fatalf(a.t, format, args...)
}

// Keys are the keys of the command's KEY=VALUE words.
func (a Args) Keys() (out []string) {
	for _, arg := range a.data.CmdArgs {
		if len(arg.Vals) > 0 {
			out = append(out, arg.Key)
		}
	}
	return out
}

// Words are the bare words.
func (a Args) Words() (out []string) {
	for _, arg := range a.data.CmdArgs {
		if len(arg.Vals) == 0 {
			out = append(out, arg.Key)
		}
	}
	return out
}

// Has tells whether a key or a bare word is there.
func (a Args) Has(key string) bool { return a.data.HasArg(key) }

// Get is the value of a key, several joined by commas.
func (a Args) Get(key string) (value string, ok bool) {
	for _, arg := range a.data.CmdArgs {
		if arg.Key == key && len(arg.Vals) > 0 {
			return strings.Join(arg.Vals, ","), true
		}
	}
	return "", false
}

// Str is Get with a value for a key that is not there.
func (a Args) Str(key, fallback string) string {
	if s, ok := a.Get(key); ok {
		return s
	}
	return fallback
}

// Number is a whole number.
func (a Args) Number(key string, fallback int) int {
	s, ok := a.Get(key)
	if !ok {
		return fallback
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		a.Fatalf("%s: %v", key, err)
	}
	return n
}

// Duration is a time span such as 10s.
func (a Args) Duration(key string, fallback time.Duration) time.Duration {
	s, ok := a.Get(key)
	if !ok {
		return fallback
	}
	return a.Span(s)
}

// Span reads a time span such as 10s.
func (a Args) Span(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		a.Fatalf("%v", err)
	}
	return d
}
