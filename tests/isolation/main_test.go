package isolation

import (
	"testing"

	"lagoon/internal/lab/labtest"
)

func TestMain(m *testing.M) { labtest.Main(m) }
