package conf

import (
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Value is one effective setting.
type Value struct {
	Key     string // storage.tier[0].path
	Value   string // as TOML
	Default string // as TOML; "" for a key that has no default
	Source  string
}

// Values lists every setting in the order of default.toml.
func (c *Config) Values() []Value {
	var out []Value
	c.each(func(key, val string) {
		out = append(out, Value{Key: key, Value: val, Default: c.standard(key), Source: c.Source(key)})
	})
	return out
}

// standard is the default of a key. Tiers that a layer lists are not those of default.toml: what they leave out has defaults of its own.
func (c *Config) standard(key string) string {
	rest, isTier := strings.CutPrefix(key, "storage.tier[")
	if !isTier || c.origins["storage.tier"].Layer == layerDefault {
		return c.defaults[key]
	}
	_, name, _ := strings.Cut(rest, "].")
	out := ""
	visit(reflect.ValueOf(tierDefaults()), "", func(field, val string) {
		if field == name {
			out = val
		}
	})
	return out
}

// Source tells where the value of a key came from: default, lagoon.toml:12, env LAGOON_…, --set ….
func (c *Config) Source(key string) string {
	if o, ok := c.origins[key]; ok {
		return o.Where
	}
	return "default"
}

// Digest is a short fingerprint of all values, whatever their origin.
func (c *Config) Digest() string {
	h := sha256.New()
	c.each(func(key, val string) { fmt.Fprintf(h, "%s = %s\n", key, val) })
	return hex.EncodeToString(h.Sum(nil))[:12]
}

// Effective writes the whole configuration as TOML, each value with its origin. The text loads to the same Config.
func (c *Config) Effective() string {
	var out strings.Builder
	table := ""
	var lines [][2]string
	flush := func() {
		width := 0
		for _, l := range lines {
			width = max(width, min(len(l[0]), 60))
		}
		for _, l := range lines {
			fmt.Fprintf(&out, "%-*s # %s\n", width, l[0], l[1])
		}
		lines = nil
	}
	c.each(func(key, val string) {
		in, name := tableOf(key)
		if in != table {
			flush()
			if table != "" {
				out.WriteByte('\n')
			}
			if strings.HasSuffix(in, "]") {
				fmt.Fprintf(&out, "[[%s]]\n", withoutIndex(in))
			} else {
				fmt.Fprintf(&out, "[%s]\n", in)
			}
			table = in
		}
		lines = append(lines, [2]string{name + " = " + val, printable(c.Source(key))})
	})
	flush()
	return out.String()
}

// tableOf splits a dotted key into its table and its name there. Kafka's names have dots of their own, which need quotes.
func tableOf(key string) (table, name string) {
	if name, ok := strings.CutPrefix(key, "topic_defaults."); ok {
		return "topic_defaults", tomlQuote(name)
	}
	dot := strings.LastIndexByte(key, '.')
	return key[:dot], key[dot+1:]
}

func (c *Config) values() map[string]string {
	out := map[string]string{}
	c.each(func(key, val string) { out[key] = val })
	return out
}

// each visits every leaf in TOML order: the keys of a table before its sub-tables.
func (c *Config) each(fn func(key, val string)) {
	visit(reflect.ValueOf(c).Elem(), "", fn)
}

func visit(v reflect.Value, prefix string, fn func(key, val string)) {
	var tables []field
	for _, f := range fieldsOf(v.Type()) {
		if k := f.typ.Kind(); k == reflect.Struct || k == reflect.Map || isTables(f.typ) {
			tables = append(tables, f)
			continue
		}
		fn(prefix+f.name, format(v.Field(f.index)))
	}
	for _, f := range tables {
		sub, name := v.Field(f.index), prefix+f.name
		switch {
		case f.typ.Kind() == reflect.Struct:
			visit(sub, name+".", fn)
		case isTables(f.typ):
			for i := range sub.Len() {
				visit(sub.Index(i), fmt.Sprintf("%s[%d].", name, i), fn)
			}
		default:
			m := map[string]reflect.Value{}
			for _, k := range sub.MapKeys() {
				m[k.String()] = sub.MapIndex(k)
			}
			for _, k := range slices.Sorted(maps.Keys(m)) {
				fn(name+"."+k, format(m[k]))
			}
		}
	}
}

// format writes a value as TOML.
func format(v reflect.Value) string {
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		text, _ := m.MarshalText() // units never fail
		return strconv.Quote(string(text))
	}
	switch v.Kind() {
	case reflect.String:
		return tomlQuote(v.String())
	case reflect.Slice:
		items := make([]string, v.Len())
		for i := range items {
			items[i] = tomlQuote(v.Index(i).String())
		}
		return "[" + strings.Join(items, ", ") + "]"
	default:
		return fmt.Sprint(v.Interface())
	}
}

// tomlQuote writes a basic string; unlike strconv.Quote it uses only TOML's escapes.
func tomlQuote(s string) string {
	var out strings.Builder
	out.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			out.WriteRune('\\')
			out.WriteRune(r)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(&out, `\u%04X`, r)
		default:
			out.WriteRune(r)
		}
	}
	out.WriteByte('"')
	return out.String()
}

// printable keeps an origin on its line: flags and variables may hold anything.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
}
