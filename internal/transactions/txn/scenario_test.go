package txn_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"lagoon/internal/transactions/txn"
)

// TestScenarios replays testdata/*.txt: each file is the story of one transactional id. Rewrite the expected answers with -rewrite, and
// read the diff.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 6 {
		t.Fatalf("scenario files: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			w := &world{now: time.Unix(1_000_000, 0), nextID: 100}
			w.x = txn.New(w.id(), w.now)
			datadriven.RunTest(t, file, w.run)
		})
	}
}

type world struct {
	x      *txn.Txn
	now    time.Time
	nextID int64
}

func (w *world) id() int64 { w.nextID++; return w.nextID - 1 }

// run carries out one event: init, add, verify, end (all as=ID/EPOCH), complete, expire, advance, restart.
func (w *world) run(t *testing.T, td *datadriven.TestData) string {
	who, protocol := txn.Unknown, 1
	var text string
	if td.HasArg("as") {
		td.ScanArgs(t, "as", &text)
		if _, err := fmt.Sscanf(text, "%d/%d", &who.ID, &who.Epoch); err != nil {
			td.Fatalf(t, "as=%s: %v", text, err)
		}
	}
	if td.HasArg("v") {
		td.ScanArgs(t, "v", &protocol)
	}
	var parts []txn.Partition
	word := ""
	for _, arg := range td.CmdArgs {
		if topic, index, ok := strings.Cut(arg.Key, "-"); ok && len(arg.Vals) == 0 {
			p := txn.Partition{Topic: topic}
			_, _ = fmt.Sscan(index, &p.Index)
			parts = append(parts, p)
		} else if len(arg.Vals) == 0 {
			word = arg.Key
		}
	}
	fresh := func(needed bool) int64 {
		if needed {
			return w.id()
		}
		return txn.NoProducerID
	}
	answer := ""
	switch td.Cmd {
	case "init":
		got, err := w.x.InitProducer(who, time.Minute, fresh(w.x.NeedsNewID()), w.now)
		answer = fmt.Sprintf("%d/%d %s", got.ID, got.Epoch, name(err))
	case "add":
		answer = name(w.x.AddPartitions(who, parts, int16(protocol), w.now))
	case "verify":
		answer = name(w.x.Verify(who, parts[0]))
	case "end":
		err := w.x.End(who, word == "commit", int16(protocol), fresh(protocol >= 2 && w.x.NeedsNewID()), w.now)
		answer = name(err)
		if next := w.x.Next(); err == txn.None && protocol >= 2 {
			answer += fmt.Sprintf(", goes on as %d/%d", next.ID, next.Epoch)
		}
	case "complete":
		w.x.Complete(w.now)
	case "expire":
		w.x.Expire(w.now, 7*24*time.Hour, fresh(w.x.TimedOut(w.now) && w.x.NeedsNewID()))
	case "advance":
		d, err := time.ParseDuration(word)
		if err != nil {
			td.Fatalf(t, "%v", err)
		}
		w.now = w.now.Add(d)
	case "restart":
		w.x = txn.Restore(w.x.Record())
	case "epoch": // jump to an epoch
		r := w.x.Record()
		_, _ = fmt.Sscan(word, &r.Epoch)
		w.x = txn.Restore(r)
	default:
		td.Fatalf(t, "unknown command %q", td.Cmd)
	}
	r := w.x.Record()
	if !w.x.Changed() {
		if answer == "" {
			answer = "ok"
		}
		return answer + "\n"
	}
	state := fmt.Sprintf("-> %s %d/%d", r.State, r.ProducerID, r.Epoch)
	if r.NextID != txn.NoProducerID {
		state += fmt.Sprintf(", then %d/0", r.NextID)
	}
	for _, p := range r.Partitions {
		state += fmt.Sprintf(" %s-%d", p.Topic, p.Index)
	}
	return strings.TrimSpace(answer+"\n"+state) + "\n"
}

var names = map[txn.Error]string{txn.None: "ok", txn.InvalidTxnState: "INVALID_TXN_STATE", txn.InvalidProducerIDMapping: "INVALID_PRODUCER_ID_MAPPING",
	txn.ConcurrentTransactions: "CONCURRENT_TRANSACTIONS", txn.ProducerFenced: "PRODUCER_FENCED", txn.Abortable: "TRANSACTION_ABORTABLE"}

func name(err txn.Error) string {
	if n, ok := names[err]; ok {
		return n
	}
	return fmt.Sprintf("error %d", err)
}
