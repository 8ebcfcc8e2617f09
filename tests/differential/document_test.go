package differential

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"lagoon/tests/internal/lagoontest"
)

var update = flag.Bool("update", false, "write the generated parts of docs/compatibility.md")

// notes say what there is to know about an API beyond its versions.
var notes = map[int16]string{
	0:  "0-2 are advertised, because older librdkafka asks for it, and answered with UNSUPPORTED_VERSION",
	2:  "all special timestamps: latest, earliest, max, earliest local, latest tiered, earliest pending upload",
	29: "no authorizer: SECURITY_DISABLED",
	30: "no authorizer: SECURITY_DISABLED",
	31: "no authorizer: SECURITY_DISABLED",
	34: "pins a partition's sealed segments to a tier's log directory; `lagoon pins`, `lagoon unpin`",
	43: "one replica: there is nothing to elect",
	45: "one broker: the assignment that there is, or an error",
	46: "one broker: always empty",
	50: "no user has credentials",
	55: "the catalogue, as a quorum of one",
	57: "levels cannot be changed",
}

// absentFor says why an API is not served; it counts as long as that is so.
var absentFor = map[int16]string{
	17: "no security yet",
	36: "no security yet",
	38: "delegation tokens: no security yet",
	39: "delegation tokens: no security yet",
	40: "delegation tokens: no security yet",
	41: "delegation tokens: no security yet",
	51: "no security yet",
	64: "one node: there is no broker to take out of the cluster",
	71: "clients push their metrics as soon as it is served; not wanted",
	72: "clients push their metrics as soon as it is served; not wanted",
	76: "share groups are out of scope",
	77: "share groups are out of scope",
	78: "share groups are out of scope",
	79: "share groups are out of scope",
	80: "one node: there is no quorum to change",
	81: "one node: there is no quorum to change",
	83: "share groups are out of scope",
	84: "share groups are out of scope",
	85: "share groups are out of scope",
	86: "share groups are out of scope",
	87: "share groups are out of scope",
	88: "Streams groups are out of scope; Streams works with classic groups",
	89: "Streams groups are out of scope; Streams works with classic groups",
	90: "share groups are out of scope",
	91: "share groups are out of scope",
	92: "share groups are out of scope",
}

// TestDocumented holds docs/compatibility.md to what the broker advertises and what TestDifferential allows.
func TestDocumented(t *testing.T) {
	b := lagoontest.Start(t, lagoontest.Options{Tiers: []lagoontest.Tier{{Name: "ssd"}}})
	x := &exchange{t: t, side: &side{name: "lagoon", addr: b.Bootstrap()}}
	x.ready()
	x.close()
	name := filepath.Join(lagoontest.Root(), "docs", "compatibility.md")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	want := string(text)
	for part, content := range map[string]string{"apis": apiTable(t, x.side.ranges), "differences": differenceTable()} {
		begin, end := fmt.Sprintf("<!-- %s: generated -->\n", part), fmt.Sprintf("<!-- end of %s -->", part)
		before, rest, ok := strings.Cut(want, begin)
		_, after, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			t.Fatalf("%s has no part %q", name, part)
		}
		want = before + begin + content + end + after
	}
	switch {
	case want == string(text):
	case *update:
		if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s is not what the broker advertises and this test allows: go test ./tests/differential -run Documented -update", name)
	}
}

// apiTable lists what Kafka or Lagoon serves to clients.
func apiTable(t *testing.T, served map[int16][2]int16) string {
	keys := map[int16]int16{}
	kversion.V4_3_0().EachMaxKeyVersion(func(key, highest int16) {
		if req := kmsg.RequestForKey(key); req != nil && !betweenBrokers[key] {
			keys[key] = highest
		}
	})
	for key := range served {
		if _, ok := keys[key]; !ok {
			t.Errorf("%s (key %d) is served and no API for clients of Kafka 4.3", kmsg.NameForKey(key), key)
		}
	}
	var out strings.Builder
	out.WriteString("| key | API | Lagoon | Kafka 4.3 to | |\n|---|---|---|---|---|\n")
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		versions, note := "–", notes[key]
		r, ok := served[key]
		if ok {
			versions = fmt.Sprintf("%d-%d", r[0], r[1])
		} else if note, ok = absentFor[key]; !ok {
			t.Errorf("%s (key %d) is not served and nothing says why", kmsg.NameForKey(key), key)
		}
		fmt.Fprintf(&out, "| %d | %s | %s | %d | %s |\n", key, kmsg.NameForKey(key), versions, keys[key], note)
	}
	return out.String()
}

// betweenBrokers are the keys that no client sends.
var betweenBrokers = map[int16]bool{4: true, 5: true, 6: true, 7: true, 52: true, 53: true, 54: true, 56: true, 58: true, 59: true, 62: true, 63: true, 67: true, 70: true, 73: true, 82: true}

func differenceTable() string {
	var out strings.Builder
	out.WriteString("| API | what differs | why |\n|---|---|---|\n")
	rows := slices.Clone(differences)
	slices.SortStableFunc(rows, func(a, b difference) int { return cmp.Compare(a.api, b.api) })
	for _, d := range rows {
		fmt.Fprintf(&out, "| %s | %s | %s |\n", cmp.Or(d.api, "all"), d.what, d.why)
	}
	return out.String()
}
