package conf

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/BurntSushi/toml"
)

//go:embed default.toml
var defaultText string

// DefaultText is the commented file of all keys with their defaults.
func DefaultText() string { return defaultText }

// maxFileBytes bounds what is read: the largest sensible file is a hundred times smaller (guess).
const maxFileBytes = 256 << 10

// Layers in order of precedence.
const (
	layerDefault = iota
	layerPreset
	layerFile
	layerEnv
	layerSet
)

// LoadOptions names the layers above the defaults; all may be empty.
type LoadOptions struct {
	// Path is the configuration file.
	Path string
	// Preset are key=value settings of a command itself, below the file. PresetName is their origin.
	Preset     []string
	PresetName string
	// Env is os.Environ() or a part of it.
	Env []string
	// Set are key=value flags.
	Set []string
}

// Load reads all layers and checks the result. On error it returns Problems with everything that is wrong, warnings left out;
// the warnings of a usable configuration are in Config.Warnings.
func Load(opt LoadOptions) (*Config, error) {
	if opt.Path == "" {
		return load(opt, "", nil)
	}
	text, err := readFile(opt.Path)
	if err != nil {
		return nil, Problems{{Code: codeUnreadable, Severity: SeverityError, Where: opt.Path, Text: err.Error()}}
	}
	return load(opt, filepath.Base(opt.Path), text)
}

// Parse is Load for a text in memory; name stands in for the file in messages.
func Parse(name, text string, opt LoadOptions) (*Config, error) {
	opt.Path = name
	return load(opt, name, []byte(text))
}

func readFile(path string) ([]byte, error) {
	f, err := OpenText(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, fmt.Errorf("is a pipe whose writer did not come to an end within %s", Duration(pipeTime))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	if len(text) > maxFileBytes {
		return nil, fmt.Errorf("is larger than %s: this is not a Lagoon configuration", Bytes(maxFileBytes))
	}
	if info, err := f.Stat(); err == nil && len(text) == 0 && !info.Mode().IsRegular() {
		return nil, errors.New("is a pipe that nobody wrote to") // rather than a broker with defaults
	}
	return text, nil
}

// pipeTime bounds the wait for who writes to a pipe; a shell's <(…) may ask for a passphrase first. Tests shorten it.
var pipeTime = time.Minute

// OpenText opens a regular file, or a pipe, which is read for a minute at most; nothing else. It never waits for a pipe's writer: what nobody
// has open for writing is at its end at once. Errors follow the path in a sentence.
func OpenText(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		err = fmt.Errorf("cannot be read: %w", err)
	case info.Mode()&os.ModeNamedPipe != 0: // those of a shell, too
		if err = f.SetReadDeadline(time.Now().Add(pipeTime)); err != nil {
			err = fmt.Errorf("cannot be read: %w", err)
		}
	case !info.Mode().IsRegular():
		err = errors.New("is not a regular file or a pipe")
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, err
	}
	return f, nil
}

func load(opt LoadOptions, name string, text []byte) (*Config, error) {
	var problems Problems
	c := &Config{File: opt.Path, origins: map[string]Origin{}}
	s := newSchema()
	layer := func(n int, source string) *assigner {
		return &assigner{schema: s, layer: n, source: source, origins: c.origins, problems: &problems}
	}

	layer(layerDefault, "default").file(c, defaultText)
	c.defaults = c.values()
	for _, setting := range opt.Preset {
		layer(layerPreset, opt.PresetName).setting(c, setting)
	}
	if name != "" {
		layer(layerFile, name).file(c, string(text))
	}
	for _, v := range slices.Sorted(slices.Values(opt.Env)) {
		layer(layerEnv, "").env(c, v)
	}
	for _, setting := range opt.Set {
		layer(layerSet, "--set "+setting).setting(c, setting)
	}
	// A value that could not be read keeps its default, so the checks below it still make sense.
	check(c, &problems)
	errs, warns := problems.sorted().split()
	if len(errs) > 0 {
		return nil, errs
	}
	c.Warnings = warns
	return c, nil
}

var unquoted = regexp.MustCompile(`=\s*-?[0-9][0-9_.]*\s*(([KMGTP]i?)?B(/s)?|ms|[smhd]|%)`)

func (a *assigner) file(c *Config, text string) {
	tree := map[string]any{}
	if _, err := toml.Decode(text, &tree); err != nil {
		a.syntax(text, err)
		return
	}
	a.places = places(text)
	a.table(reflect.ValueOf(c).Elem(), "", "", tree)
}

// syntax reports what the TOML parser did not understand; it stops at the first fault, so there is only one.
func (a *assigner) syntax(text string, err error) {
	p := Problem{Code: codeSyntax, Severity: SeverityError, Where: a.source, Text: err.Error(), layer: a.layer}
	var pe toml.ParseError
	if errors.As(err, &pe) {
		p.line, p.col, p.Text = pe.Position.Line, pe.Position.Col, pe.Message
		p.Where = fmt.Sprintf("%s:%d:%d", a.source, p.line, p.col)
		lines := strings.Split(text, "\n")
		if p.line >= 1 && p.line <= len(lines) && unquoted.MatchString(lines[p.line-1]) {
			p.Text += `: put a value with a unit in quotes, as in "64MiB"`
		}
	}
	*a.problems = append(*a.problems, p)
}

// setting applies one key=value.
func (a *assigner) setting(c *Config, setting string) {
	key, val, ok := strings.Cut(setting, "=")
	if key = strings.TrimSpace(key); !ok || key == "" {
		a.report(codeSetSyntax, "", "", "must be key=value, as in --set storage.segment_bytes=64MiB")
		return
	}
	a.path(c, strings.Split(key, "."), strings.TrimSpace(val))
}

// env applies one NAME=value of the environment if it is meant for us. Names without "__" belong to others (a Kubernetes
// service called lagoon sets LAGOON_PORT), unless they are a key with the wrong number of underscores.
func (a *assigner) env(c *Config, entry string) {
	name, val, _ := strings.Cut(entry, "=")
	rest, ok := strings.CutPrefix(name, "LAGOON_")
	if !ok {
		return
	}
	a.source = "env " + name
	if !strings.Contains(rest, "__") {
		flat := strings.ToLower(rest)
		for _, key := range a.schema.keys {
			if strings.ReplaceAll(key, ".", "_") == flat {
				a.report(codeUnknownKey, "", key, "tables are separated by two underscores: LAGOON_"+envName(key))
			}
		}
		return
	}
	a.path(c, strings.Split(strings.ToLower(rest), "__"), val)
}

func envName(key string) string { return strings.ToUpper(strings.ReplaceAll(key, ".", "__")) }

// path assigns text to the key that path names; tiers are reached by name.
func (a *assigner) path(c *Config, path []string, text string) {
	dotted := strings.Join(path, ".")
	v := reflect.ValueOf(c).Elem()
	at := ""
	for i := 0; i < len(path); i++ {
		fields := fieldsOf(v.Type())
		n := slices.IndexFunc(fields, func(f field) bool { return f.name == path[i] })
		if n < 0 {
			a.report(codeUnknownKey, "", dotted, a.schema.unknownKey(path))
			return
		}
		f := fields[n]
		v, at = v.Field(f.index), strings.TrimPrefix(at+"."+f.name, ".")
		last := i == len(path)-1
		switch {
		case f.typ.Kind() == reflect.Struct && !last:
		case isTables(f.typ) && i < len(path)-2:
			i++
			tier := tierNamed(c, path[i])
			if tier < 0 {
				a.report(codeUnknownKey, "", dotted, fmt.Sprintf("no tier %q; there is %s", path[i], strings.Join(tierNames(c), ", ")))
				return
			}
			v, at = v.Index(tier), fmt.Sprintf("%s[%d]", at, tier)
		case f.typ.Kind() == reflect.Map && (i == len(path)-2 || i < len(path)-2 && f.typ.Elem().Kind() == reflect.String):
			name := strings.Join(path[i+1:], ".")
			if tier := tierNamed(c, name); f.typ.Elem().Kind() != reflect.String && tier >= 0 {
				name = c.Storage.Tiers[tier].Name
			}
			a.value(v, f, "", at, map[string]any{name: text})
			return
		case last && f.typ.Kind() != reflect.Struct && f.typ.Kind() != reflect.Map && !isTables(f.typ):
			a.leaf(v, f, "", at, fromText(v, text))
			return
		default:
			text := at + " is not a table"
			if keys := a.schema.children[withoutIndex(at)]; len(keys) > 0 {
				text = "names a table: name one of its keys, " + strings.Join(keys, ", ")
			}
			a.report(codeUnknownKey, "", dotted, text)
			return
		}
	}
}

// fromText reads a setting's text as TOML would have typed it; a text that does not fit stays a string and is refused by setLeaf.
func fromText(v reflect.Value, text string) any {
	if _, quantity := v.Addr().Interface().(interface{ UnmarshalText([]byte) error }); quantity {
		return text
	}
	switch v.Kind() {
	case reflect.Bool:
		if b, err := strconv.ParseBool(text); err == nil {
			return b
		}
	case reflect.Int32, reflect.Int64:
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n
		}
	case reflect.Slice:
		list := []any{}
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item != "" {
				list = append(list, item)
			}
		}
		return list
	}
	return text
}

// tierNamed is the index of a tier, -1 for none. Variables of the environment cannot have a dash in their names.
func tierNamed(c *Config, name string) int {
	return slices.IndexFunc(c.Storage.Tiers, func(t Tier) bool {
		return strings.EqualFold(t.Name, name) || strings.ReplaceAll(t.Name, "-", "_") == name
	})
}

func tierNames(c *Config) []string {
	names := make([]string, len(c.Storage.Tiers))
	for i, t := range c.Storage.Tiers {
		names[i] = t.Name
	}
	return names
}
