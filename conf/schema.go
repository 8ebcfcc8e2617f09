package conf

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// schema is what the Config struct's tags say: all keys, their children by table and Kafka's names for them.
type schema struct {
	keys       []string            // dotted leaf keys in order of declaration; a tier's are storage.tier.path
	tables     []string            // dotted
	children   map[string][]string // by dotted table
	kafka      map[string]string   // Kafka name → key
	kafkaNames []string
}

func newSchema() *schema {
	s := &schema{children: map[string][]string{}, kafka: map[string]string{}}
	s.walk("", reflect.TypeFor[Config]())
	s.kafkaNames = slices.Sorted(maps.Keys(s.kafka))
	return s
}

func (s *schema) walk(prefix string, t reflect.Type) {
	for _, f := range fieldsOf(t) {
		s.children[prefix] = append(s.children[prefix], f.name)
		key := strings.TrimPrefix(prefix+"."+f.name, ".")
		for _, name := range f.kafka {
			if _, taken := s.kafka[name]; !taken || f.typ.Kind() != reflect.Slice {
				s.kafka[name] = key
			}
		}
		switch {
		case f.typ.Kind() == reflect.Struct:
			s.tables = append(s.tables, key)
			s.walk(key, f.typ)
		case isTables(f.typ):
			s.tables = append(s.tables, key)
			s.walk(key, f.typ.Elem())
		default:
			s.keys = append(s.keys, key)
		}
	}
}

// field is one key of a table.
type field struct {
	name      string
	index     int
	typ       reflect.Type
	kafka     []string
	unlimited bool
}

func fieldsOf(t reflect.Type) []field {
	var out []field
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("toml")
		if name == "" || name == "-" {
			continue
		}
		out = append(out, field{
			name: name, index: i, typ: f.Type,
			kafka: strings.Fields(f.Tag.Get("kafka")), unlimited: f.Tag.Get("unlimited") == "yes",
		})
	}
	return out
}

func isTables(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct
}

// Origin says which layer a value came from.
type Origin struct {
	Layer     int    // index of the layer, 0 = default
	Where     string // default, lagoon.toml:12, env LAGOON_…, --set
	line, col int
}

// assigner writes one layer's tree into a Config.
type assigner struct {
	schema   *schema
	layer    int
	source   string           // file name, or the whole origin when places is nil
	places   map[string]place // nil: the layer has no positions
	origins  map[string]Origin
	problems *Problems
}

// table assigns the keys of tree to the struct v. raw is the path for places, dotted the one for people.
func (a *assigner) table(v reflect.Value, raw, dotted string, tree map[string]any) {
	fields := fieldsOf(v.Type())
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == name })
		childRaw, childDotted := join(raw, name), strings.TrimPrefix(dotted+"."+name, ".")
		if i < 0 {
			a.unknown(childRaw, childDotted, tree[name])
			continue
		}
		a.value(v.Field(fields[i].index), fields[i], childRaw, childDotted, tree[name])
	}
}

// unknown reports a key that is not in the schema. A whole unknown table is one problem, unless it is a Kafka name that
// its dots turned into tables.
func (a *assigner) unknown(raw, dotted string, val any) {
	if sub, ok := val.(map[string]any); ok {
		for _, leaf := range leaves(raw, dotted, sub) {
			text := a.schema.unknownKey(strings.Split(leaf.dotted, "."))
			if strings.Contains(text, "Kafka's") {
				a.report(codeUnknownKey, leaf.raw, leaf.dotted, text)
				val = nil
			}
		}
		if val == nil {
			return
		}
	}
	a.report(codeUnknownKey, raw, dotted, a.schema.unknownKey(strings.Split(withoutIndex(dotted), ".")))
}

type leaf struct{ raw, dotted string }

func leaves(raw, dotted string, tree map[string]any) []leaf {
	var out []leaf
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		r, d := join(raw, name), dotted+"."+name
		if sub, ok := tree[name].(map[string]any); ok {
			out = append(out, leaves(r, d, sub)...)
		} else {
			out = append(out, leaf{r, d})
		}
	}
	return out
}

// withoutIndex turns storage.tier[1].path into storage.tier.path.
func withoutIndex(dotted string) string {
	for {
		open := strings.IndexByte(dotted, '[')
		end := strings.IndexByte(dotted, ']')
		if open < 0 || end < open {
			return dotted
		}
		dotted = dotted[:open] + dotted[end+1:]
	}
}

func (a *assigner) value(v reflect.Value, f field, raw, dotted string, val any) {
	switch {
	case f.typ.Kind() == reflect.Struct:
		tree, ok := val.(map[string]any)
		if !ok {
			a.report(codeType, raw, dotted, fmt.Sprintf("must be a table, not %s", kindOf(val)))
			return
		}
		a.table(v, raw, dotted, tree)
	case isTables(f.typ):
		a.tables(v, raw, dotted, val)
	case f.typ.Kind() == reflect.Map:
		tree, ok := val.(map[string]any)
		if !ok {
			a.report(codeType, raw, dotted, fmt.Sprintf("must be a table, not %s", kindOf(val)))
			return
		}
		// Layers must not share a map: replace it before writing.
		fresh := reflect.MakeMap(f.typ)
		for _, k := range v.MapKeys() {
			fresh.SetMapIndex(k, v.MapIndex(k))
		}
		v.Set(fresh)
		if f.typ.Elem().Kind() == reflect.String {
			var twice []string
			tree, twice = flat(tree)
			for _, name := range slices.Compact(slices.Sorted(slices.Values(twice))) {
				a.report(codeValue, join(raw, name), dotted+"."+name, "is set twice, with quotes and without")
			}
		}
		for _, name := range slices.Sorted(maps.Keys(tree)) {
			elem := reflect.New(f.typ.Elem()).Elem()
			f.typ, f.name = elem.Type(), name
			at := join(raw, name)
			if _, whole := a.places[at]; !whole { // written without quotes, its dots made tables of it
				at = join(raw, strings.ReplaceAll(name, ".", sep))
			}
			if a.leaf(elem, f, at, dotted+"."+name, tree[name]) {
				v.SetMapIndex(reflect.ValueOf(name), elem)
			}
			f.typ = v.Type()
		}
	default:
		a.leaf(v, f, raw, dotted, val)
	}
}

// flat turns tables in tables into one with dotted names: Kafka's names have dots, and few people quote them. Numbers and truth values
// become the text that Kafka's tools would send. Names that come to the same, as "a.b" and a.b do, are told: they are two keys in TOML.
func flat(tree map[string]any) (out map[string]any, twice []string) {
	out = map[string]any{}
	put := func(name string, val any) {
		if _, taken := out[name]; taken {
			twice = append(twice, name)
		}
		out[name] = val
	}
	for name, val := range tree {
		switch val := val.(type) {
		case map[string]any:
			inside, again := flat(val)
			for inner, v := range inside {
				put(name+"."+inner, v)
			}
			for _, inner := range again {
				twice = append(twice, name+"."+inner)
			}
		case int64, float64, bool:
			put(name, fmt.Sprint(val))
		default:
			put(name, val)
		}
	}
	return out, twice
}

// tables replaces a whole array of tables: a layer that names tiers names all of them.
func (a *assigner) tables(v reflect.Value, raw, dotted string, val any) {
	var list []map[string]any
	switch val := val.(type) {
	case []map[string]any:
		list = val
	case []any:
		for i, item := range val {
			tree, ok := item.(map[string]any)
			if !ok {
				a.report(codeType, element(raw, i), dotted, fmt.Sprintf("must be a table, not %s", kindOf(item)))
				return
			}
			list = append(list, tree)
		}
	default:
		a.report(codeType, raw, dotted, fmt.Sprintf("must be a list of tables: write [[%s]] above its keys", dotted))
		return
	}
	for key := range a.origins {
		if strings.HasPrefix(key, dotted+"[") {
			delete(a.origins, key)
		}
	}
	a.origins[dotted] = a.origin(raw)
	out := reflect.MakeSlice(v.Type(), 0, len(list))
	for i, tree := range list {
		item := reflect.New(v.Type().Elem()).Elem()
		item.Set(reflect.ValueOf(tierDefaults()))
		name := fmt.Sprintf("%s[%d]", dotted, i)
		a.origins[name] = a.origin(element(raw, i))
		a.table(item, element(raw, i), name, tree)
		out = reflect.Append(out, item)
	}
	v.Set(out)
}

// leaf assigns one scalar or list of strings and remembers its origin.
func (a *assigner) leaf(v reflect.Value, f field, raw, dotted string, val any) bool {
	if code, text := setLeaf(v, f, val); text != "" {
		a.report(code, join(raw, "="), dotted, text)
		return false
	}
	a.origins[dotted] = a.origin(raw)
	return true
}

func setLeaf(v reflect.Value, f field, val any) (code, text string) {
	if u, ok := v.Addr().Interface().(interface{ UnmarshalText([]byte) error }); ok {
		s, ok := val.(string)
		if !ok {
			return codeType, unitText(v, val)
		}
		if s == "unlimited" && !f.unlimited {
			return codeValue, "cannot be unlimited"
		}
		before := reflect.ValueOf(v.Interface())
		if err := u.UnmarshalText([]byte(s)); err != nil {
			v.Set(before) // so that the checks see the layer below and not zero
			return codeValue, err.Error()
		}
		return "", ""
	}
	want := ""
	switch v.Kind() {
	case reflect.String:
		if s, ok := val.(string); ok {
			v.SetString(s)
			return "", ""
		}
		want = "a string in quotes"
	case reflect.Bool:
		if b, ok := val.(bool); ok {
			v.SetBool(b)
			return "", ""
		}
		want = "true or false"
	case reflect.Int32, reflect.Int64:
		if n, ok := val.(int64); ok {
			if v.OverflowInt(n) {
				return codeRange, fmt.Sprintf("%d is larger than %d", n, math.MaxInt32)
			}
			v.SetInt(n)
			return "", ""
		}
		want = "a whole number"
	case reflect.Slice:
		if list, ok := val.([]any); ok {
			out := make([]string, 0, len(list))
			for _, item := range list {
				s, ok := item.(string)
				if !ok {
					return codeType, fmt.Sprintf("must be a list of strings; it holds %s", kindOf(item))
				}
				out = append(out, s)
			}
			v.Set(reflect.ValueOf(out))
			return "", ""
		}
		want = `a list of strings, as in ["a", "b"]`
	}
	return codeType, fmt.Sprintf("must be %s, not %s", want, kindOf(val))
}

// unitText is the complaint about a number, bool or table where a quantity in quotes belongs.
func unitText(v reflect.Value, val any) string {
	example := map[reflect.Type]string{
		reflect.TypeFor[Bytes]():    `a size with its unit in quotes, as in "64MiB"`,
		reflect.TypeFor[Rate]():     `a rate with its unit in quotes, as in "20MiB/s"`,
		reflect.TypeFor[Duration](): `a time with its unit in quotes, as in "10s"`,
		reflect.TypeFor[Percent]():  `a share in quotes, as in "85%"`,
	}[v.Type()]
	return fmt.Sprintf("must be %s, not %s", example, kindOf(val))
}

func kindOf(val any) string {
	switch val := val.(type) {
	case string:
		return "the string " + clip(val)
	case int64:
		return "the number " + strconv.FormatInt(val, 10)
	case float64:
		return "the number " + strconv.FormatFloat(val, 'g', -1, 64)
	case bool:
		return strconv.FormatBool(val)
	case map[string]any:
		return "a table"
	case []any, []map[string]any:
		return "a list"
	default:
		return "a date"
	}
}

func (a *assigner) at(raw string) place {
	for raw != "" {
		if p, ok := a.places[raw]; ok {
			return p
		}
		raw = raw[:max(strings.LastIndex(raw, sep), 0)]
	}
	return place{}
}

func (a *assigner) origin(raw string) Origin {
	o := Origin{Layer: a.layer, Where: a.source}
	if p := a.at(raw); p.line > 0 && a.layer != layerDefault {
		o.line, o.col = p.line, p.col
		o.Where = fmt.Sprintf("%s:%d", a.source, p.line)
	}
	return o
}

func (a *assigner) report(code, raw, dotted, text string) {
	p := Problem{Code: code, Severity: SeverityError, Where: a.source, Key: dotted, Text: text, layer: a.layer}
	if at := a.at(raw); at.line > 0 {
		p.line, p.col = at.line, at.col
		p.Where = fmt.Sprintf("%s:%d:%d", a.source, at.line, at.col)
	}
	*a.problems = append(*a.problems, p)
}
