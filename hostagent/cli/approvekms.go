package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/approval"
	"github.com/btcdecoded/holdfast/shared/keyring/awskms"
	"github.com/btcdecoded/holdfast/shared/policy"
)

const kmsHint = "it takes the ARN of a key for SIGN_VERIFY of spec ECC_NIST_P256 or ECC_NIST_EDWARDS25519, and the rights kms:GetPublicKey and kms:Sign on it"

// signWithKMS signs with a key that never leaves KMS. Whether the signature counts is decided by the public key in the
// policy: KMS is not asked again.
func signWithKMS(ctx context.Context, request []byte, as, arn string) (events.Signature, error) {
	client := awskms.New(awskms.Options{})
	public, err := client.Public(ctx, arn)
	if err != nil {
		return events.Signature{}, hinted{err, kmsHint}
	}
	s, err := approval.SignBy(request, as, public, func(data []byte) ([]byte, error) { return client.Sign(ctx, arn, public, data) })
	if err != nil {
		return events.Signature{}, hinted{err, kmsHint}
	}
	return s, nil
}

func (a *app) approveKeyCommand() *cobra.Command {
	var arn string
	cmd := &cobra.Command{
		Use:   "key --kms ARN",
		Short: "Print the line of the policy for a key in AWS KMS",
		Long: `Print the public key of an asymmetric key of KMS as the policy's list of approvers wants it. Hosts check signatures with
this line alone and never ask KMS: whoever can change the key there, or who answers in its place, changes nothing.`,
		Example: "  holdfast approve key --kms arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
		Args:    arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if arn == "" {
				return usagef("approve key: --kms names the key")
			}
			public, err := awskms.New(awskms.Options{}).Public(cmd.Context(), arn)
			if err != nil {
				return hinted{err, kmsHint}
			}
			line, err := policy.SSHLine(public)
			if err != nil {
				return err
			}
			return a.print(struct {
				Key string `json:"key"`
				KMS string `json:"kms"`
			}{line, arn}, func(w io.Writer) { fmt.Fprintln(w, line) })
		},
	}
	cmd.Flags().StringVar(&arn, "kms", "", "`ARN` of the key")
	return cmd
}
