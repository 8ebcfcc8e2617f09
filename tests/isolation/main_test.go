package isolation

import (
	"testing"

	"lagoon/tests/internal/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }
