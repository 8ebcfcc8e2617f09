package broker

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/partition"
	"lagoon/segment"
)

func listOffsets(version int16, topic string, timestamps ...int64) *kmsg.ListOffsetsRequest {
	req := kmsg.NewPtrListOffsetsRequest()
	req.Version, req.ReplicaID = version, -1
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = topic
	for i, ts := range timestamps {
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.Timestamp = int32(i), ts
		t.Partitions = append(t.Partitions, p)
	}
	req.Topics = append(req.Topics, t)
	return req
}

func TestListOffsets(t *testing.T) {
	r := newRig(t, nil)
	c := r.dial()
	log := r.logs["orders-0"]
	log.fill(t, 10, 100)
	log.manual = true
	log.fill(t, 5, 100) // not readable yet
	log.start, log.epoch = 3, 7
	log.times = map[int64]partition.TimestampOffset{
		500: {Offset: 4, TimestampMs: 555, LeaderEpoch: 6},
		900: {Offset: 12, TimestampMs: 999, LeaderEpoch: 7},
	}
	for _, tc := range []struct {
		timestamp int64
		since     int16
		want      string
	}{
		{timeLatest, 1, "10@-1 epoch 7"},
		{timeEarliest, 1, "3@-1 epoch 7"},
		{timeMax, 7, "-1@-1 epoch -1"}, // the largest is not readable yet
		{timeEarliestLocal, 8, "4@-1 epoch 7"},
		{timeLatestTiered, 9, "-1@-1 epoch -1"},
		{timeEarliestPendingUpload, 11, "3@-1 epoch 7"},
		{500, 1, "4@555 epoch 6"},
		{900, 1, "-1@-1 epoch -1"}, // not readable yet
		{1000, 1, "-1@-1 epoch -1"},
		{-7, 99, ""},
	} {
		for version := int16(1); version <= 11; version++ {
			p := call[*kmsg.ListOffsetsResponse](c, listOffsets(version, "orders", tc.timestamp)).Topics[0].Partitions[0]
			if version < tc.since {
				if p.ErrorCode != kerr.UnsupportedVersion.Code || p.Offset != -1 {
					t.Fatalf("%d in v%d: %+v", tc.timestamp, version, p)
				}
				continue
			}
			if version < 4 {
				p.LeaderEpoch = r.epochOf(tc.want)
			}
			if got := fmt.Sprintf("%d@%d epoch %d", p.Offset, p.Timestamp, p.LeaderEpoch); p.ErrorCode != 0 || got != tc.want {
				t.Fatalf("%d in v%d: %s, error %d, want %s", tc.timestamp, version, got, p.ErrorCode, tc.want)
			}
		}
	}
	log.sync()
	if p := call[*kmsg.ListOffsetsResponse](c, listOffsets(7, "orders", timeMax)).Topics[0].Partitions[0]; p.Offset != 14 || p.Timestamp != 1234 {
		t.Fatalf("largest timestamp: %+v", p)
	}
}

// epochOf reads the epoch out of an expectation: versions below 4 do not carry it.
func (r *rig) epochOf(want string) (epoch int32) {
	fmt.Sscanf(want[strings.Index(want, "epoch"):], "epoch %d", &epoch)
	return epoch
}

func TestListOffsetsErrors(t *testing.T) {
	r := newRig(t, nil)
	c := r.dial()
	delete(r.logs, "orders-1")
	req := listOffsets(4, "orders", timeLatest, timeLatest, timeLatest, timeLatest)
	req.Topics[0].Partitions[2].CurrentLeaderEpoch = 9
	twice := req.Topics[0].Partitions[0]
	req.Topics[0].Partitions = append(req.Topics[0].Partitions, twice)
	req.Topics = append(req.Topics, listOffsets(4, "nowhere", timeLatest).Topics...)
	var got []int16
	for _, tp := range call[*kmsg.ListOffsetsResponse](c, req).Topics {
		for _, p := range tp.Partitions {
			got = append(got, p.ErrorCode)
		}
	}
	want := []int16{0, kerr.NotLeaderForPartition.Code, kerr.UnknownLeaderEpoch.Code, kerr.UnknownTopicOrPartition.Code, kerr.InvalidRequest.Code, kerr.UnknownTopicOrPartition.Code}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func TestOffsetForLeaderEpoch(t *testing.T) {
	r := newRig(t, nil)
	c := r.dial()
	r.logs["orders-0"].fill(t, 5, 100)
	r.logs["orders-0"].epoch = 3
	for version := int16(2); version <= 4; version++ {
		req := kmsg.NewPtrOffsetForLeaderEpochRequest()
		req.Version, req.ReplicaID = version, -1
		tp := kmsg.NewOffsetForLeaderEpochRequestTopic()
		tp.Topic = "orders"
		for _, q := range [][3]int32{{0, -1, 3}, {0, 3, 4}, {0, 2, 3}, {0, 4, 3}, {9, -1, 3}} {
			p := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
			p.Partition, p.CurrentLeaderEpoch, p.LeaderEpoch = q[0], q[1], q[2]
			tp.Partitions = append(tp.Partitions, p)
		}
		req.Topics = append(req.Topics, tp)
		var got []string
		for _, p := range call[*kmsg.OffsetForLeaderEpochResponse](c, req).Topics[0].Partitions {
			got = append(got, fmt.Sprintf("e%d %d@%d", p.ErrorCode, p.EndOffset, p.LeaderEpoch))
		}
		same(t, strings.Join(got, ", "), "e0 5@3, e0 -1@-1, e74 -1@-1, e75 -1@-1, e3 -1@-1")
	}
}

// Every error that our packages define has a row; one that nobody thought of is told as such.
func TestErrorCodesAreExhaustive(t *testing.T) {
	inTable := map[string]bool{}
	for _, row := range codes {
		code, known := codeOf(fmt.Errorf("doing: %w", row.err))
		if !known || code != row.code.Code {
			t.Errorf("%v is told as %d, want %v", row.err, code, row.code)
		}
		inTable[row.err.Error()] = true
	}
	for _, dir := range []string{"../partition", "../metadata", "../../segment"} {
		for name, text := range sentinels(t, dir) {
			if !inTable[text] {
				t.Errorf("%s.%s (%q) has no Kafka code", dir, name, text)
			}
		}
	}
	if code, known := codeOf(nil); code != 0 || !known {
		t.Errorf("nil is told as %d", code)
	}
	if code, known := codeOf(&segment.CorruptError{Err: errors.New("x")}); code != kerr.KafkaStorageError.Code || !known {
		t.Errorf("corruption is told as %d", code)
	}
	if code, known := codeOf(errors.New("new")); code != -1 || known {
		t.Errorf("an unknown error is told as %d", code)
	}
}

// sentinels reads the exported error variables of a package out of its source.
func sentinels(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		pkg, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(pkg, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 || !strings.HasPrefix(spec.Names[0].Name, "Err") {
				return true
			}
			if c, ok := spec.Values[0].(*ast.CallExpr); ok && len(c.Args) == 1 {
				if lit, ok := c.Args[0].(*ast.BasicLit); ok {
					found[spec.Names[0].Name] = strings.Trim(lit.Value, `"`)
				}
			}
			return true
		})
	}
	if len(found) == 0 {
		t.Fatalf("no errors found in %s", dir)
	}
	return found
}
