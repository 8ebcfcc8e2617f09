package groups

import (
	"fmt"
	"testing"

	"lagoon/internal/groups/consumer"
)

type manyTopics []string

func (m manyTopics) Version() uint64                             { return 1 }
func (m manyTopics) Find(string) (consumer.TopicID, int32, bool) { return consumer.TopicID{}, 0, false }
func (m manyTopics) Name(consumer.TopicID) (string, bool)        { return "", false }
func (m manyTopics) Names() []string                             { return m }

// TestMatchedTopicsAreBounded: clients choose the expressions; what is kept of all of them does not grow with their number times that of the topics.
func TestMatchedTopicsAreBounded(t *testing.T) {
	topics := make(manyTopics, 10_000)
	for i := range topics {
		topics[i] = fmt.Sprintf("topic-%d", i)
	}
	var x regexes
	for i := range 300 {
		found, err := x.match(fmt.Sprintf(".*|%d", i), topics)
		if err != nil || len(found.Topics) != len(topics) {
			t.Fatalf("%d topics, %v", len(found.Topics), err)
		}
		kept := 0
		for _, m := range x.matched {
			kept += len(m.Topics)
		}
		if kept > maxMatched+len(topics) {
			t.Fatalf("%d names are kept of %d expressions", kept, len(x.matched))
		}
	}
	again, err := x.match(".*|299", topics)
	if first, _ := x.match(".*|299", topics); err != nil || first != again {
		t.Errorf("an expression is matched twice: %v", err)
	}
}

// TestQuotedToTheEnd: \Q without \E quotes all that follows, which is not what an expression is wrapped in.
func TestQuotedToTheEnd(t *testing.T) {
	var x regexes
	for expr, want := range map[string]string{`\Qa.b`: "[a.b]", `\Qa.b\E`: "[a.b]", `a.\Qb`: "[a.b axb]", `a\Q.\Eb`: "[a.b]", `a.b`: "[a.b axb]"} {
		if found, err := x.match(expr, manyTopics{"a.b", "axb", "a.bc"}); err != nil || fmt.Sprint(found.Topics) != want {
			t.Errorf("%s: %+v, %v, want %s", expr, found, err, want)
		}
	}
}
