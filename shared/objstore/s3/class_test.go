package s3

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

func TestClassOf(t *testing.T) {
	want := map[types.ObjectStorageClass]objstore.Class{
		types.ObjectStorageClassGlacierIr: objstore.Cool, types.ObjectStorageClassGlacier: objstore.Frozen, types.ObjectStorageClassDeepArchive: objstore.Deep,
	}
	for _, class := range append(types.ObjectStorageClass("").Values(), "") {
		if got := classOf(class); got != want[class] {
			t.Errorf("%q: %d, want %d", class, got, want[class])
		}
	}
}
