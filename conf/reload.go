package conf

import (
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Change is a key that two configurations give different values. From and To are TOML; "" stands for a key that is not there.
type Change struct {
	Key, From, To string
	Source        string // of To
}

// Changes lists what next says otherwise than c, in the order of default.toml; what only c has comes last.
func (c *Config) Changes(next *Config) []Change {
	was, is := c.values(), next.values()
	var out []Change
	next.each(func(key, val string) {
		if from, had := was[key]; !had || from != val {
			out = append(out, Change{Key: key, From: from, To: val, Source: next.Source(key)})
		}
	})
	for _, key := range slices.Sorted(maps.Keys(was)) {
		if _, still := is[key]; !still {
			out = append(out, Change{Key: key, From: was[key], Source: next.Source(key)})
		}
	}
	return out
}

// Below tells whether a dotted key is one of keys, or in a table that one of them names.
func Below(key string, keys []string) bool {
	return slices.ContainsFunc(keys, func(k string) bool { return key == k || strings.HasPrefix(key, k+".") })
}

// With is c with the named keys and tables as next has them, as a daemon runs that takes only those from a new file. On error, Problems:
// what next is right about need not go with what c says.
func (c *Config) With(next *Config, keys []string) (*Config, error) {
	out := *c // nothing changes what a Config points to
	for _, key := range keys {
		to, from := reflect.ValueOf(&out).Elem(), reflect.ValueOf(next).Elem()
		for name := range strings.SplitSeq(key, ".") {
			fields := fieldsOf(to.Type())
			f := fields[slices.IndexFunc(fields, func(f field) bool { return f.name == name })]
			to, from = to.Field(f.index), from.Field(f.index)
		}
		to.Set(from)
	}
	out.origins = maps.Clone(c.origins)
	maps.DeleteFunc(out.origins, func(key string, _ Origin) bool { return Below(key, keys) })
	for key, o := range next.origins {
		if Below(key, keys) {
			out.origins[key] = o
		}
	}
	var problems Problems
	check(&out, &problems)
	errs, warns := problems.sorted().split()
	if len(errs) > 0 {
		return nil, errs
	}
	out.Warnings = warns
	return &out, nil
}
