package s3

import (
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// classOf sorts the storage class that a listing tells. Intelligent-Tiering has one name for all its tiers: that such an
// object is archived shows only when it is read.
func classOf(c types.ObjectStorageClass) objstore.Class {
	switch c {
	case types.ObjectStorageClassGlacierIr:
		return objstore.Cool
	case types.ObjectStorageClassGlacier:
		return objstore.Frozen
	case types.ObjectStorageClassDeepArchive:
		return objstore.Deep
	}
	return objstore.Warm
}
