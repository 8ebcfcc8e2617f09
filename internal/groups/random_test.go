package groups_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/internal/groups"
	"lagoon/internal/groups/classic"
	"lagoon/internal/groups/consumer"
	"lagoon/internal/groups/groupstest"
	"lagoon/segment"
)

// lives are topics that are deleted and made anew: each life has an id of its own.
type lives struct {
	fixedTopics
	version uint64
	born    map[string]byte // by name, 0: not there
}

func (l lives) Version() uint64 { return l.version }

func (l lives) Find(name string) (id consumer.TopicID, n int32, ok bool) {
	if id, n, ok = l.fixedTopics.Find(name); !ok || l.born[name] == 0 {
		return id, 0, false
	}
	id[15] = l.born[name]
	return id, n, true
}

func (l lives) Name(id consumer.TopicID) (string, bool) {
	for name := range l.born {
		if found, _, ok := l.Find(name); ok && found == id {
			return name, true
		}
	}
	return "", false
}

func (l lives) with(name string, born byte) lives {
	next := lives{version: l.version + 1, born: map[string]byte{name: born}}
	for other, b := range l.born {
		if other != name {
			next.born[other] = b
		}
	}
	return next
}

// TestRandomRestarts commits, with and without transactions, and deletes, while members come and go, groups change their protocol, topics are deleted and
// made anew, syncs take their time, and time passes. At any time a coordinator that starts on what is durable, or on what compaction leaves of that, tells
// the same offsets, and the same of members of the consumer protocol. It may tell an offset as unstable that a transaction had committed before it was
// deleted and committed again, and never the other way round. LAGOON_SEED repeats a run.
func TestRandomRestarts(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("LAGOON_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	for run := range 6 {
		synctest.Test(t, func(t *testing.T) {
			if err := randomRestarts(t, rand.New(rand.NewPCG(seed, uint64(run)))); err != nil {
				t.Fatalf("LAGOON_SEED=%d, run %d: %v", seed, run, err)
			}
		})
	}
}

var (
	randomGroups = []string{"a", "b", "c"}
	randomTopics = []string{"orders", "returns"}
)

// offsets is what clients are told, as text.
func (w *world) offsets() string {
	var out strings.Builder
	for _, g := range randomGroups {
		var asked []groups.Offset
		for _, topic := range randomTopics {
			asked = append(asked, groups.Offset{Topic: topic}, groups.Offset{Topic: topic, Partition: 1})
		}
		unstable := w.Unstable(g)
		err := w.Fetch(g, groups.Fetcher{}, asked)
		for _, o := range asked {
			fmt.Fprintf(&out, "%s %s-%d: %d", g, o.Topic, o.Partition, o.Offset)
			if unstable(o.Topic, o.Partition) {
				out.WriteString(" unstable")
			}
			out.WriteByte('\n')
		}
		if err != classic.None {
			fmt.Fprintf(&out, "%s: %v\n", g, err)
		}
	}
	return out.String()
}

// protocols is what is known of groups of the consumer protocol, as text.
func (w *world) protocols() string {
	var out strings.Builder
	for _, g := range randomGroups {
		d, err := w.DescribeConsumer(g)
		members, _ := json.Marshal(d.Members)
		fmt.Fprintf(&out, "%s: %s, epoch %d, target %d, %s %v\n", g, d.State, d.Epoch, d.TargetEpoch, members, err)
	}
	return out.String()
}

// sameOffsets allows for what is unstable after a start only.
func sameOffsets(after, before string) bool {
	return slices.EqualFunc(strings.Split(after, "\n"), strings.Split(before, "\n"), func(a, b string) bool { return a == b || a == b+" unstable" })
}

func randomRestarts(t *testing.T, rng *rand.Rand) error {
	topics := lives{version: 1, born: map[string]byte{"orders": 1, "returns": 1}}
	options := func(o *groups.Options) {
		o.Retention = time.Hour
		o.Topics = func() groups.Topics { return topics }
		o.Exists = func(topic string, p int32) bool {
			_, n, ok := topics.Find(topic)
			return ok && p < n
		}
	}
	registry := prometheus.NewRegistry()
	w := start(t, &groupstest.Log{}, func(o *groups.Options) {
		options(o)
		o.Registerer = registry
	})
	defer func() { w.Close() }()
	synctest.Wait()
	pick := func(list []string) string { return list[rng.IntN(len(list))] }
	members := map[string]string{} // of classic groups, by group
	epochs := map[string]int32{}   // of members "m" of consumer groups
	var story []string
	held := false // nothing becomes durable
	for step := range 100 {
		group, topic, p := pick(randomGroups), pick(randomTopics), int32(rng.IntN(2))
		producer := int64(1 + rng.IntN(3))
		r := commit(group, topic, p, int64(step))
		did := ""
		kind := rng.IntN(15)
		if held && (kind == 10 || kind == 12) {
			kind = 14 // they wait for syncs
		}
		switch kind {
		case 0, 1, 2:
			errs, _, err := w.Commit(r)
			did = fmt.Sprintf("commit %s %s-%d: %v %v", group, topic, p, errs, err)
		case 3, 4, 5:
			errs, _, err := w.CommitTxn(groups.TxnCommitRequest{CommitRequest: r, ProducerID: producer, Guard: 1})
			did = fmt.Sprintf("commit %s %s-%d by producer %d: %v %v", group, topic, p, producer, errs, err)
		case 6, 7:
			marker := segment.Marker{Commit: rng.IntN(3) > 0}
			if _, err := w.EndTxn(0, producer, 0, marker, false); err != nil {
				return err
			}
			did = fmt.Sprintf("producer %d ends with %v", producer, marker.Commit)
		case 8:
			_, _, err := w.DeleteOffsets(group, []groups.Offset{{Topic: topic, Partition: p}})
			did = fmt.Sprintf("delete %s %s-%d: %v", group, topic, p, err)
		case 9:
			_, err := w.Delete(group)
			did = fmt.Sprintf("delete %s: %v", group, err)
		case 10:
			born := topics.born[topic]
			topics = topics.with(topic, 0)
			w.TopicDeleted(t.Context(), topic)
			if did = "delete " + topic; rng.IntN(2) == 0 {
				did += ", made anew"
			}
			topics = topics.with(topic, born+1)
		case 11:
			d := time.Duration(1+rng.IntN(30)) * time.Minute
			<-time.After(d)
			synctest.Wait()
			did = fmt.Sprintf("%s pass", d)
		case 12: // members of the classic protocol
			if id := members[group]; id != "" {
				delete(members, group)
				_, err := w.Leave(group, []classic.Leaver{{MemberID: id}})
				did = fmt.Sprintf("leave %s: %v", group, err)
				break
			}
			answer := w.Join(groups.JoinRequest{Group: group, JoinRequest: classic.JoinRequest{NewID: fmt.Sprint(group, step), ProtocolType: "consumer",
				Protocols: []classic.Protocol{{Name: "range", Metadata: []byte{0, 0, 0, 0, 0, 1, 0, 6, 'o', 'r', 'd', 'e', 'r', 's', 0, 0, 0, 0}}}, Session: 10 * time.Minute, Rebalance: time.Minute}})
			synctest.Wait()
			select {
			case joined := <-answer:
				if joined.Err == classic.None {
					members[group] = joined.MemberID
					<-w.Sync(groups.SyncRequest{Group: group, SyncRequest: classic.SyncRequest{MemberID: joined.MemberID, Generation: joined.Generation,
						Assignments: map[string][]byte{joined.MemberID: ordersAssignment}}})
				}
				did = fmt.Sprintf("join %s: %v", group, joined.Err)
			default:
				did = fmt.Sprintf("join %s: waits", group)
			}
		case 13: // members of the consumer protocol
			beat := consumer.HeartbeatRequest{MemberID: "m", Topics: []string{"orders"}, Owned: []consumer.TopicPartitions{}, Rebalance: time.Minute}
			if epochs[group] != 0 {
				beat = consumer.HeartbeatRequest{MemberID: "m", Epoch: -1, Rebalance: -1}
			}
			res, _ := w.ConsumerHeartbeat(group, beat)
			epochs[group] = max(res.Epoch, 0)
			did = fmt.Sprintf("heartbeat %s at %d: epoch %d %+v", group, beat.Epoch, res.Epoch, res.Refused)
		case 14:
			if held = !held; held {
				w.log.Hold()
			} else {
				w.log.Release()
			}
			did = fmt.Sprintf("held: %t", held)
		}
		synctest.Wait()
		story = append(story, did)
		want := w.offsets()
		for name, log := range map[string]*groupstest.Log{"log": w.log.Crash(), "compacted log": w.log.Crash().Compacted()} {
			next := start(t, log, options)
			synctest.Wait()
			got, want := next.offsets(), want
			if !held {
				got, want = got+next.protocols(), want+w.protocols()
			}
			if held { // what is not durable is unstable
				got, want = strings.ReplaceAll(got, " unstable", ""), strings.ReplaceAll(want, " unstable", "")
			}
			next.Close()
			if !sameOffsets(got, want) {
				return fmt.Errorf("%s\nof the %s is told\n%s\nby who wrote it\n%s", strings.Join(story, "\n"), name, got, want)
			}
		}
	}
	w.log.Release()
	for producer := range int64(4) {
		if _, err := w.EndTxn(0, producer, 0, segment.Marker{}, false); err != nil {
			return err
		}
	}
	for _, group := range randomGroups {
		if id := members[group]; id != "" {
			_, _ = w.Leave(group, []classic.Leaver{{MemberID: id}})
		}
		w.ConsumerHeartbeat(group, consumer.HeartbeatRequest{MemberID: "m", Epoch: -1, Rebalance: -1})
		synctest.Wait()
		if _, err := w.Delete(group); err != classic.None && err != classic.GroupIDNotFound {
			return fmt.Errorf("delete %s: %w", group, err)
		}
	}
	found, err := registry.Gather()
	for _, m := range found {
		if m.GetName() == "lagoon_group_memory_bytes" && m.Metric[0].Gauge.GetValue() != 0 {
			return fmt.Errorf("%v bytes are counted of no groups", m.Metric[0].Gauge.GetValue())
		}
	}
	return err
}
