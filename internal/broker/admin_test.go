package broker

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/groups"
	"lagoon/internal/groups/groupstest"
	"lagoon/internal/metadata"
	"lagoon/internal/partition"
	"lagoon/internal/statetopic"
	"lagoon/internal/vfs"
	"lagoon/segment"
)

// adminStore is a partition store for the admin APIs' tests: it keeps which partitions are there and fails on request.
type adminStore struct {
	mu      sync.Mutex
	parts   map[logDirPartition]*adminPartition
	configs map[string]partition.Config
	views   []partition.DirView

	groups     map[int32]*groupstest.Log
	failCreate func(topic string, index int32) error
	failRemove error
	hang       chan struct{} // remove waits until it is closed; nil: it does not
}

type adminPartition struct {
	id         [16]byte
	start, end segment.Offset
	offline    error
}

func (s *adminStore) groupLog(p int32) (groups.Log, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.groups == nil {
		s.groups = map[int32]*groupstest.Log{}
	}
	if s.groups[p] == nil {
		s.groups[p] = &groupstest.Log{}
	}
	return s.groups[p], true
}

func (s *adminStore) transactionLog(int32) (statetopic.Log, bool) { return &groupstest.Log{}, true }

func (s *adminStore) log(string, int32) (partitionLog, bool) { return nil, false }

func (s *adminStore) create(_ context.Context, topic string, id [16]byte, index int32, cfg partition.Config) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failCreate != nil {
		if err := s.failCreate(topic, index); err != nil {
			return err
		}
	}
	key := logDirPartition{topic, index}
	if p, ok := s.parts[key]; ok {
		if p.id != id {
			return fmt.Errorf("directory of %s-%d belongs to another topic", topic, index)
		}
		return partition.ErrExists
	}
	s.parts[key] = &adminPartition{id: id}
	s.configs[topic] = cfg
	return nil
}

func (*adminStore) disconnected(uint64) {}

func (s *adminStore) remove(_ context.Context, topic string, _ [16]byte) error {
	if s.hang != nil {
		<-s.hang
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failRemove != nil {
		return s.failRemove
	}
	for key := range s.parts {
		if key.topic == topic {
			delete(s.parts, key)
		}
	}
	return nil
}

func (s *adminStore) configure(cfgs map[string]*partition.Config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for topic, cfg := range cfgs {
		s.configs[topic] = *cfg
	}
}

func (s *adminStore) config(topic string) partition.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.configs[topic]
}

func (s *adminStore) count(topic string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.parts {
		if key.topic == topic {
			n++
		}
	}
	return n
}

func (s *adminStore) dirs() []partition.DirView { return s.views }

func (s *adminStore) state(topic string, index int32) (int32, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.parts[logDirPartition{topic, index}]
	if !ok {
		return -1, false, nil
	}
	return 7, true, p.offline
}

// pinTarget takes a view's path for its name. /ssd is the home of everything, /ssd2 is beside it.
func (s *adminStore) pinTarget(topic string, index int32, path string) (string, error) {
	i := slices.IndexFunc(s.views, func(d partition.DirView) bool { return d.Path == path })
	switch _, served, offline := s.state(topic, index); {
	case i < 0:
		return "", partition.ErrNoLogDir
	case s.views[i].Err != nil:
		return "", s.views[i].Err
	case !served:
		return "", partition.ErrClosed
	case offline != nil:
		return "", offline
	case path == "/ssd2":
		return "", partition.ErrPlacement
	}
	return path[1:], nil
}

func (s *adminStore) trim(_ context.Context, topic string, index int32, before segment.Offset) (segment.Offset, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.parts[logDirPartition{topic, index}]
	switch {
	case !ok:
		return 0, partition.ErrClosed
	case before == -1:
		before = p.end
	case before > p.end:
		return 0, partition.ErrOffsetOutOfRange
	}
	p.start = max(p.start, before)
	return p.start, nil
}

// adminBroker is a broker on an in-memory catalogue and an adminStore.
type adminBroker struct {
	*Broker
	t     *testing.T
	store *adminStore
	disk  *vfs.Mem
	table map[int16]api
}

func newAdminBroker(t *testing.T, change func(*Options)) *adminBroker {
	t.Helper()
	disk := vfs.NewMem(1)
	meta, err := metadata.Open(disk, "lagoon-metadata", metadata.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { meta.Close() })
	opt := Options{NodeID: 1, Metadata: meta, Logger: slog.New(slog.DiscardHandler), AutoCreateTopics: true, DefaultPartitions: 2}
	if change != nil {
		change(&opt)
	}
	store := &adminStore{parts: map[logDirPartition]*adminPartition{}, configs: map[string]partition.Config{},
		views: []partition.DirView{
			{Tier: "ssd", Path: "/ssd", TotalBytes: 100, UsableBytes: 40},
			{Tier: "hdd", Path: "/hdd", TotalBytes: 1000, UsableBytes: 400},
		}}
	b, err := newBroker(opt.withDefaults(), store)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.closeCoordinators)
	a := &adminBroker{Broker: b, t: t, store: store, disk: disk, table: map[int16]api{}}
	for _, row := range apiTable() {
		a.table[row.key] = row
	}
	return a
}

// ask sends a request of one version through its codec, the handler, and the response's codec.
func ask[R kmsg.Response](a *adminBroker, version int16, req kmsg.Request) R {
	a.t.Helper()
	row := a.table[req.Key()]
	if version < row.min || version > row.max {
		a.t.Fatalf("%s v%d is not served", row.name, version)
	}
	req.SetVersion(version)
	body := row.body()
	body.SetVersion(version)
	if err := body.ReadFrom(req.AppendTo(nil)); err != nil {
		a.t.Fatalf("%s v%d: request: %v", row.name, version, err)
	}
	r := &request{version: version, clientID: "test", peer: peer{local: "10.0.0.9"}, endpoint: &endpoint{port: 9092}, body: body}
	var resp kmsg.Response
	if row.begin != nil {
		resp = row.begin(a.Broker, a.t.Context(), r)(a.t.Context(), nil)
	} else {
		var err error
		if resp, err = row.handle(a.Broker, a.t.Context(), r); err != nil {
			a.t.Fatalf("%s v%d: %v", row.name, version, err)
		}
	}
	out := body.ResponseKind()
	if err := out.ReadFrom(resp.AppendTo(nil)); err != nil {
		a.t.Fatalf("%s v%d: response: %v", row.name, version, err)
	}
	return out.(R)
}

// topic makes a topic directly.
func (a *adminBroker) topic(name string, partitions int32, configs ...string) *metadata.Topic {
	a.t.Helper()
	topic := newTopic{name: name, partitions: partitions, configs: map[string]string{}}
	for _, c := range configs {
		k, v, _ := strings.Cut(c, "=")
		topic.configs[k] = v
	}
	t, err := a.createTopic(a.t.Context(), topic)
	if err != nil {
		a.t.Fatal(err)
	}
	return t
}

func text(s *string) string {
	if s == nil {
		return "<null>"
	}
	return *s
}

// expect compares the printed form of answers, one per line.
func expect(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got  %s\n want %s", what, strings.Join(got, "\n      "), strings.Join(want, "\n      "))
	}
}
