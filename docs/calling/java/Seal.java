// Seals a credential for one instance: nobody but a worker can open it, and for no other instance.
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import org.bouncycastle.crypto.InvalidCipherTextException;
import org.bouncycastle.crypto.hpke.HPKE;

public class Seal {
  /**
   * What stands under `sealed` in the update, for a public key of the gateway's `/v1/seal-key` and a secret as JSON. The
   * key's `keyId` stands beside it.
   */
  static String seal(String publicKey, String instanceId, String secret) throws InvalidCipherTextException {
    HPKE suite =
        new HPKE(HPKE.mode_base, HPKE.kem_X25519_SHA256, HPKE.kdf_HKDF_SHA256, HPKE.aead_AES_GCM256);
    byte[][] box =
        suite.seal(
            suite.deserializePublicKey(Base64.getDecoder().decode(publicKey)),
            ("integration-service/v1/" + instanceId).getBytes(StandardCharsets.UTF_8),
            new byte[0],
            secret.getBytes(StandardCharsets.UTF_8),
            null,
            null,
            null);
    byte[] ciphertext = box[0];
    byte[] encapsulated = box[1];
    byte[] sealed = new byte[encapsulated.length + ciphertext.length];
    System.arraycopy(encapsulated, 0, sealed, 0, encapsulated.length);
    System.arraycopy(ciphertext, 0, sealed, encapsulated.length, ciphertext.length);
    return Base64.getEncoder().encodeToString(sealed);
  }
}
