package differential

import (
	"encoding/hex"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// flat is a response as values by path: "Topics[orders].Partitions[0].ErrorCode" = "3".
type flat map[string]string

// flattener turns the responses of one sequence on one side into paths and values. It lives as long as the sequence, so that an id
// that comes twice gets the same word twice.
type flattener struct {
	x     *exchange
	words map[string]string
	count map[string]int
}

func newFlattener(x *exchange) *flattener {
	return &flattener{x: x, words: map[string]string{}, count: map[string]int{}}
}

// word stands for a value that each side makes up: the first of a kind is "kind 1".
func (f *flattener) word(kind, value string) string {
	if w, ok := f.words[kind+value]; ok {
		return w
	}
	f.count[kind]++
	w := fmt.Sprintf("%s %d", kind, f.count[kind])
	f.words[kind+value] = w
	return w
}

// id is a word for a topic id: the topic's name where the sequence knows it, the id itself where the sequence made it up.
func (f *flattener) id(id [16]byte) string {
	for name, known := range f.x.ids {
		if known == id {
			return "id of " + name
		}
	}
	switch {
	case id == [16]byte{}:
		return "0"
	case [13]byte(id[3:]) == [13]byte{}:
		return hex.EncodeToString(id[:3])
	}
	return f.word("id", string(id[:]))
}

func (f *flattener) response(r kmsg.Response) flat {
	out := flat{}
	if r == nil {
		out["connection"] = "closed"
		return out
	}
	f.value(out, "", "", reflect.ValueOf(r).Elem())
	return out
}

func (f *flattener) value(out flat, path, name string, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			out[path] = "null"
			return
		}
		f.value(out, path, name, v.Elem())
	case reflect.Struct:
		t := v.Type()
		for i := range t.NumField() {
			field := t.Field(i).Name
			if field == "Version" || field == "UnknownTags" || !t.Field(i).IsExported() {
				continue
			}
			f.value(out, strings.TrimPrefix(path+"."+field, "."), field, v.Field(i))
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			out[path] = f.bytes(name, v.Bytes(), v.IsNil())
			return
		}
		f.list(out, path, name, v)
	case reflect.Array:
		out[path] = f.id(v.Interface().([16]byte))
	case reflect.String:
		out[path] = f.text(name, v.String())
	case reflect.Bool:
		out[path] = strconv.FormatBool(v.Bool())
	case reflect.Float64:
		out[path] = fmt.Sprint(v.Float())
	case reflect.Uint16, reflect.Uint32:
		out[path] = f.number(name, int64(v.Uint()))
	default:
		out[path] = f.number(name, v.Int())
	}
}

// list: the order of elements means nothing where something identifies them.
func (f *flattener) list(out flat, path, name string, v reflect.Value) {
	type element struct {
		id string
		v  reflect.Value
	}
	var all []element
	for i := range v.Len() {
		e := element{v: v.Index(i)}
		if e.id = f.identity(e.v); v.Len() == 1 && strings.HasPrefix(e.id, "__") || f.ours(e.id) {
			all = append(all, e)
		}
	}
	slices.SortStableFunc(all, func(a, b element) int { return strings.Compare(a.id, b.id) })
	seen := map[string]int{}
	for _, e := range all {
		at := e.id
		if seen[e.id]++; seen[e.id] > 1 {
			at += fmt.Sprintf("#%d", seen[e.id])
		}
		out[path+"["+at+"]"] = present
		f.value(out, path+"["+at+"]", name, e.v)
	}
	if v.IsNil() {
		out[path] = "null"
	}
}

// foreign is a name that another sequence gave, or an internal topic, also behind the type of a resource.
var foreign = regexp.MustCompile(`^(\d+ )?(__|(s\d+v\d+|warm|shared)(-|$))`)

// ours: what other sequences made does not count where everything is listed.
func (f *flattener) ours(id string) bool {
	if slices.ContainsFunc(f.x.uses, func(name string) bool { return strings.Contains(id, name) }) {
		return true
	}
	return !foreign.MatchString(id) || regexp.MustCompile(`(^| )`+f.x.prefix+`-`).MatchString(id)
}

// identity is what an element of a list is known by: "" for values whose order counts.
func (f *flattener) identity(v reflect.Value) string {
	switch v.Kind() {
	case reflect.String:
		return f.text("", v.String())
	case reflect.Int32, reflect.Int16, reflect.Int8, reflect.Int64:
		return fmt.Sprint(v.Int())
	case reflect.Struct:
	default:
		return ""
	}
	var parts []string
	for _, name := range []string{"ApiKey", "CoordinatorKey", "Key", "Name", "Topic", "TopicID", "Group", "GroupID", "User", "ResourceType", "ResourceName", "ConfigName", "TransactionalID",
		"ConfigSource", "Type", "Partition", "Index", "InstanceID", "MemberID", "NodeID", "BrokerID", "FirstOffset", "ProducerID"} {
		field := v.FieldByName(name)
		if !field.IsValid() {
			continue
		}
		if field.Kind() == reflect.Pointer {
			if field.IsNil() {
				continue
			}
			field = field.Elem()
		}
		switch {
		case name == "ProducerID" && len(parts) > 0: // each side's own
		case field.Kind() == reflect.Array:
			if id := field.Interface().([16]byte); id != [16]byte{} && len(parts) == 0 {
				parts = append(parts, f.id(id))
			}
		case field.Kind() == reflect.String:
			if s := f.text(name, field.String()); s != "" || name != "Topic" { // versions with ids leave the name empty
				parts = append(parts, s)
			}
		case field.Kind() == reflect.Int8, field.Kind() == reflect.Int16, field.Kind() == reflect.Int32, field.Kind() == reflect.Int64:
			parts = append(parts, f.number(name, field.Int()))
		}
	}
	return strings.Join(parts, " ")
}

var (
	uuid    = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[A-Za-z0-9_-]{22}$`)
	cluster = regexp.MustCompile(`^[A-Za-z0-9_-]{22}$`)
)

func (f *flattener) text(name, s string) string {
	switch name {
	case "ClusterID":
		if cluster.MatchString(s) {
			return "a cluster id"
		}
	case "ErrorMessage", "ErrMsg":
		if s != "" {
			return "a text"
		}
	case "Documentation":
		if s != "" {
			return "a text"
		}
	case "MemberID", "LeaderID", "Leader":
		return uuid.ReplaceAllString(s, "UUID")
	case "ClientHost", "Host":
		return strings.TrimPrefix(s, "/")
	case "Dir", "LogDir":
		return "a directory"
	}
	return strings.ReplaceAll(s, f.x.side.addr, "ADDRESS")
}

func (f *flattener) number(name string, n int64) string {
	switch name {
	case "Port":
		if strings.HasSuffix(f.x.side.addr, fmt.Sprintf(":%d", n)) {
			return "the port"
		}
	case "ProducerID":
		if n >= 0 {
			return f.word("producer", fmt.Sprint(n))
		}
	case "SessionID":
		if n != 0 {
			return "a session"
		}
	case "Timestamp", "LogAppendTime", "StartTimestamp", "LastTimestamp", "LastFetchTimestamp", "LastCaughtUpTimestamp":
		if d := time.Since(time.UnixMilli(n)).Abs(); d < 10*time.Minute {
			return "now"
		}
	case "TotalBytes", "UsableBytes":
		if n > 0 {
			return "some"
		}
	}
	return fmt.Sprint(n)
}

func (f *flattener) bytes(name string, b []byte, null bool) string {
	switch {
	case null:
		return "null"
	case name == "RecordBatches" || name == "Records":
		return batches(b)
	}
	return hex.EncodeToString(b)
}

// batches tells what record batches hold; one that is cut off at the end does not count, since clients do not count it either.
func batches(b []byte) string {
	var out []string
	for len(b) >= 61 {
		n := 12 + int(int32(be32(b[8:])))
		if n < 61 || n > len(b) {
			break
		}
		epoch := int32(be32(b[12:]))
		out = append(out, fmt.Sprintf("offset %d epoch %d: %x", be64(b), epoch, masked(b[16:n])))
		b = b[n:]
	}
	return strings.Join(out, "; ")
}

// masked is a batch from its magic on without what each side makes up: the producer id, and the times and checksum of what a broker stamps.
func masked(b []byte) []byte {
	b = slices.Clone(b)
	const crc, attributes, firstTime, lastTime, producer = 1, 5, 11, 19, 27
	stamped := be16(b[attributes:])&8 != 0
	control := be16(b[attributes:])&32 != 0
	if int64(be64(b[producer:])) >= 0 {
		copy(b[producer:], "producer")
		clear(b[crc:attributes])
	}
	if stamped || control {
		clear(b[crc:attributes])
		clear(b[firstTime:producer])
	}
	return b
}

// found is one field in which the sides differ.
type found struct {
	sequence, api string
	version       int16
	step          int
	path          string
	lagoon, kafka string
}

func (d found) String() string {
	return fmt.Sprintf("%s %q v%d, answer %d: %s: Lagoon %s, Kafka %s", d.api, d.sequence, d.version, d.step+1, d.path, d.lagoon, d.kafka)
}

// absent and present are the values of an element that only one side has.
const absent, present = "absent", "present"

// compare lists the fields in which two runs of a sequence differ.
func compare(seq sequence, version int16, lagoon, kafka *exchange) (out []found) {
	lf, kf := newFlattener(lagoon), newFlattener(kafka)
	for i := range max(len(lagoon.steps), len(kafka.steps)) {
		if i >= len(lagoon.steps) || i >= len(kafka.steps) {
			return append(out, found{sequence: seq.name, api: kmsg.NameForKey(seq.key), version: version, step: i, path: "answers",
				lagoon: strconv.Itoa(len(lagoon.steps)), kafka: strconv.Itoa(len(kafka.steps))})
		}
		req := lagoon.steps[i].request
		l, k := lf.response(lagoon.steps[i].response), kf.response(kafka.steps[i].response)
		both := maps.Clone(l)
		maps.Copy(both, k)
		missing := ""
		for _, path := range slices.Sorted(maps.Keys(both)) {
			lv, lok := l[path]
			kv, kok := k[path]
			if !lok {
				lv = absent
			}
			if !kok {
				kv = absent
			}
			switch {
			case missing != "" && strings.HasPrefix(path, missing): // the element is reported, its fields are not
			case !lok && kv == present, !kok && lv == present:
				missing = path
				fallthrough
			case lv != kv:
				out = append(out, found{seq.name, kmsg.NameForKey(req.Key()), req.GetVersion(), i, path, lv, kv})
			}
		}
	}
	return out
}
