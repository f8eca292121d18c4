//! Who a process is, as far as it can tell: ids, groups and capabilities, and the rules by which they change.
//!
//! All of a container's processes are one user to the kernel. What each believes of itself is a
//! [`Credentials`]; equal ones are kept once, and their number is what the process carries (see
//! [`crate::bearer`]). The rules are the kernel's: credentials(7), setresuid(2), capabilities(7).
//! Nothing here touches a process.

use std::collections::HashMap;

use rustix::io::Errno;

/// Numbers of capabilities, linux/capability.h.
#[allow(missing_docs)]
pub mod capability {
    pub const CHOWN: u64 = 1 << 0;
    pub const DAC_OVERRIDE: u64 = 1 << 1;
    pub const DAC_READ_SEARCH: u64 = 1 << 2;
    pub const FOWNER: u64 = 1 << 3;
    pub const FSETID: u64 = 1 << 4;
    pub const KILL: u64 = 1 << 5;
    pub const SETGID: u64 = 1 << 6;
    pub const SETUID: u64 = 1 << 7;
    pub const SETPCAP: u64 = 1 << 8;
    pub const LINUX_IMMUTABLE: u64 = 1 << 9;
    pub const SYS_CHROOT: u64 = 1 << 18;
    pub const SYS_ADMIN: u64 = 1 << 21;
    pub const MKNOD: u64 = 1 << 27;
    pub const SETFCAP: u64 = 1 << 31;
    pub const MAC_OVERRIDE: u64 = 1 << 32;
    /// Those that a change of the file system uid switches.
    pub const FILE_SYSTEM: u64 =
        CHOWN | DAC_OVERRIDE | DAC_READ_SEARCH | FOWNER | FSETID | LINUX_IMMUTABLE | MKNOD | MAC_OVERRIDE;
}

/// "No change" to the set*id calls.
pub const KEEP: u32 = u32::MAX;

const NO_ROOT: u32 = 1;
const NO_SETUID_FIXUP: u32 = 1 << 2;
const KEEP_CAPS: u32 = 1 << 4;
const NO_AMBIENT_RAISE: u32 = 1 << 6;

/// One kind of id, four times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[allow(missing_docs)]
pub struct Ids {
    pub real: u32,
    pub effective: u32,
    pub saved: u32,
    /// For access to files.
    pub fs: u32,
}

impl Ids {
    /// All four the same.
    pub fn all(id: u32) -> Self {
        Self { real: id, effective: id, saved: id, fs: id }
    }

    fn has(self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }

    fn is_root_somewhere(self) -> bool {
        self.has(0)
    }

    /// setuid(2), setgid(2).
    fn set(self, id: u32, may: bool) -> Result<Self, Errno> {
        if id == KEEP {
            return Err(Errno::INVAL);
        }
        if may {
            return Ok(Self::all(id));
        }
        if id == self.real || id == self.saved {
            return Ok(Self { effective: id, fs: id, ..self });
        }
        Err(Errno::PERM)
    }

    /// setreuid(2), setregid(2).
    fn set_two(self, real: u32, effective: u32, may: bool) -> Result<Self, Errno> {
        let mut new = self;
        if real != KEEP {
            if !may && real != self.real && real != self.effective {
                return Err(Errno::PERM);
            }
            new.real = real;
        }
        if effective != KEEP {
            if !may && !self.has(effective) {
                return Err(Errno::PERM);
            }
            new.effective = effective;
        }
        if real != KEEP || (effective != KEEP && effective != self.real) {
            new.saved = new.effective;
        }
        new.fs = new.effective;
        Ok(new)
    }

    /// setresuid(2), setresgid(2).
    fn set_three(self, real: u32, effective: u32, saved: u32, may: bool) -> Result<Self, Errno> {
        if !may && [real, effective, saved].iter().any(|id| *id != KEEP && !self.has(*id)) {
            return Err(Errno::PERM);
        }
        let or = |id: u32, old: u32| if id == KEEP { old } else { id };
        let effective = or(effective, self.effective);
        Ok(Self { real: or(real, self.real), effective, saved: or(saved, self.saved), fs: effective })
    }

    /// setfsuid(2), setfsgid(2): what is not allowed changes nothing.
    fn set_fs(self, id: u32, may: bool) -> Self {
        if id != KEEP && (may || self.has(id) || id == self.fs) {
            return Self { fs: id, ..self };
        }
        self
    }
}

/// The sets of capabilities(7) as masks of `1 << CAP_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[allow(missing_docs)]
pub struct Sets {
    pub permitted: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub bounding: u64,
    pub ambient: u64,
}

/// Everything that setting a user takes along.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Credentials {
    /// User ids.
    pub uid: Ids,
    /// Group ids.
    pub gid: Ids,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Capabilities.
    pub sets: Sets,
    /// `SECBIT_*` of prctl(2).
    pub secure_bits: u32,
    /// Whether setuid programs still mean something to it.
    pub no_new_privileges: bool,
}

impl Credentials {
    /// A user as a container starts with: root has what the container has, others have what is ambient.
    pub fn new(uid: u32, gid: u32, groups: Vec<u32>, bounding: u64, no_new_privileges: bool) -> Self {
        let held = if uid == 0 { bounding } else { 0 };
        let sets = Sets { permitted: held, effective: held, bounding, ..Sets::default() };
        Self { uid: Ids::all(uid), gid: Ids::all(gid), groups, sets, secure_bits: 0, no_new_privileges }
    }

    /// Whether it has a capability in effect.
    pub fn can(&self, capability: u64) -> bool {
        self.sets.effective & capability == capability
    }

    /// Whether it is in a group, for access to files.
    pub fn is_in(&self, gid: u32) -> bool {
        self.gid.fs == gid || self.groups.contains(&gid)
    }

    /// The same process asked for by its real ids, access(2).
    pub fn as_real(&self) -> Self {
        let mut real = self.clone();
        (real.uid.fs, real.gid.fs) = (self.uid.real, self.gid.real);
        if self.secure_bits & NO_SETUID_FIXUP == 0 {
            real.sets.effective = if self.uid.real == 0 { self.sets.permitted } else { 0 };
        }
        real
    }

    fn with_uid(&self, uid: Ids) -> Self {
        let mut new = Self { uid, ..self.clone() };
        if self.secure_bits & NO_SETUID_FIXUP != 0 {
            return new;
        }
        if self.uid.is_root_somewhere() && !uid.is_root_somewhere() {
            if self.secure_bits & KEEP_CAPS == 0 {
                (new.sets.permitted, new.sets.effective) = (0, 0);
            }
            new.sets.ambient = 0;
        }
        if self.uid.effective == 0 && uid.effective != 0 {
            new.sets.effective = 0;
        }
        if self.uid.effective != 0 && uid.effective == 0 {
            new.sets.effective = new.sets.permitted;
        }
        new
    }

    /// # Errors
    /// EPERM, EINVAL as setuid(2).
    pub fn set_uid(&self, uid: u32) -> Result<Self, Errno> {
        Ok(self.with_uid(self.uid.set(uid, self.can(capability::SETUID))?))
    }

    /// # Errors
    /// EPERM as setreuid(2).
    pub fn set_two_uids(&self, real: u32, effective: u32) -> Result<Self, Errno> {
        Ok(self.with_uid(self.uid.set_two(real, effective, self.can(capability::SETUID))?))
    }

    /// # Errors
    /// EPERM as setresuid(2).
    pub fn set_three_uids(&self, real: u32, effective: u32, saved: u32) -> Result<Self, Errno> {
        Ok(self.with_uid(self.uid.set_three(real, effective, saved, self.can(capability::SETUID))?))
    }

    /// setfsuid(2).
    pub fn set_fs_uid(&self, uid: u32) -> Self {
        let ids = self.uid.set_fs(uid, self.can(capability::SETUID));
        let mut new = Self { uid: ids, ..self.clone() };
        if self.secure_bits & NO_SETUID_FIXUP == 0 {
            if self.uid.fs == 0 && ids.fs != 0 {
                new.sets.effective &= !capability::FILE_SYSTEM;
            }
            if self.uid.fs != 0 && ids.fs == 0 {
                new.sets.effective |= self.sets.permitted & capability::FILE_SYSTEM;
            }
        }
        new
    }

    /// # Errors
    /// EPERM, EINVAL as setgid(2).
    pub fn set_gid(&self, gid: u32) -> Result<Self, Errno> {
        Ok(Self { gid: self.gid.set(gid, self.can(capability::SETGID))?, ..self.clone() })
    }

    /// # Errors
    /// EPERM as setregid(2).
    pub fn set_two_gids(&self, real: u32, effective: u32) -> Result<Self, Errno> {
        Ok(Self { gid: self.gid.set_two(real, effective, self.can(capability::SETGID))?, ..self.clone() })
    }

    /// # Errors
    /// EPERM as setresgid(2).
    pub fn set_three_gids(&self, real: u32, effective: u32, saved: u32) -> Result<Self, Errno> {
        let may = self.can(capability::SETGID);
        Ok(Self { gid: self.gid.set_three(real, effective, saved, may)?, ..self.clone() })
    }

    /// setfsgid(2).
    pub fn set_fs_gid(&self, gid: u32) -> Self {
        Self { gid: self.gid.set_fs(gid, self.can(capability::SETGID)), ..self.clone() }
    }

    /// # Errors
    /// EPERM without CAP_SETGID, setgroups(2).
    pub fn set_groups(&self, groups: Vec<u32>) -> Result<Self, Errno> {
        if !self.can(capability::SETGID) {
            return Err(Errno::PERM);
        }
        Ok(Self { groups, ..self.clone() })
    }

    /// # Errors
    /// EPERM as capset(2).
    pub fn set_capabilities(&self, permitted: u64, effective: u64, inheritable: u64) -> Result<Self, Errno> {
        let old = self.sets;
        let may_inherit = old.inheritable | old.permitted;
        let beyond = inheritable & !may_inherit != 0 && !self.can(capability::SETPCAP);
        let unbounded = inheritable & !(old.inheritable | old.bounding) != 0;
        if beyond || unbounded || permitted & !old.permitted != 0 || effective & !permitted != 0 {
            return Err(Errno::PERM);
        }
        let ambient = old.ambient & permitted & inheritable;
        Ok(Self { sets: Sets { permitted, effective, inheritable, ambient, ..old }, ..self.clone() })
    }

    /// prctl(PR_CAPBSET_DROP).
    ///
    /// # Errors
    /// EPERM without CAP_SETPCAP.
    pub fn drop_bounding(&self, number: u64) -> Result<Self, Errno> {
        if !self.can(capability::SETPCAP) {
            return Err(Errno::PERM);
        }
        let mut new = self.clone();
        new.sets.bounding &= !(1 << number);
        Ok(new)
    }

    /// prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE).
    ///
    /// # Errors
    /// EPERM for one that is not permitted and inheritable.
    pub fn raise_ambient(&self, number: u64) -> Result<Self, Errno> {
        let bit = 1 << number;
        let sets = self.sets;
        if sets.permitted & sets.inheritable & bit == 0 || self.secure_bits & NO_AMBIENT_RAISE != 0 {
            return Err(Errno::PERM);
        }
        Ok(Self { sets: Sets { ambient: sets.ambient | bit, ..sets }, ..self.clone() })
    }

    /// prctl(PR_SET_KEEPCAPS).
    pub fn keep_capabilities(&self, keep: bool) -> Self {
        let bits = if keep { self.secure_bits | KEEP_CAPS } else { self.secure_bits & !KEEP_CAPS };
        Self { secure_bits: bits, ..self.clone() }
    }

    /// Whether PR_SET_KEEPCAPS is on.
    pub fn keeps_capabilities(&self) -> bool {
        self.secure_bits & KEEP_CAPS != 0
    }

    /// After a successful execve(2) of a program with these marks.
    pub fn after_exec(&self, program: Program) -> Self {
        let mut new = Self { secure_bits: self.secure_bits & !KEEP_CAPS, ..self.clone() };
        let honoured = if self.no_new_privileges { Program::default() } else { program };
        if let Some(uid) = honoured.set_uid {
            new.uid.effective = uid;
        }
        if let Some(gid) = honoured.set_gid {
            new.gid.effective = gid;
        }
        let changed = new.uid.effective != self.uid.effective || new.gid.effective != self.gid.effective;
        (new.uid.saved, new.uid.fs) = (new.uid.effective, new.uid.effective);
        (new.gid.saved, new.gid.fs) = (new.gid.effective, new.gid.effective);
        let old = self.sets;
        let ambient = if changed || honoured.capabilities.is_some() { 0 } else { old.ambient };
        let (mut permitted, mut on) = match honoured.capabilities {
            Some(file) => {
                ((file.permitted & old.bounding) | (file.inheritable & old.inheritable), file.effective)
            }
            None => (0, false),
        };
        let is_root = new.uid.effective == 0 || new.uid.real == 0;
        if is_root
            && self.secure_bits & NO_ROOT == 0
            && (honoured.capabilities.is_none() || new.uid.real == 0)
        {
            permitted = old.bounding | old.inheritable;
            on = new.uid.effective == 0;
        }
        permitted |= ambient;
        new.sets = Sets { permitted, effective: if on { permitted } else { ambient }, ambient, ..old };
        new
    }
}

/// What a program's file asks for, execve(2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Program {
    /// The owner of a setuid file.
    pub set_uid: Option<u32>,
    /// The group of a setgid file.
    pub set_gid: Option<u32>,
    /// Its `security.capability`.
    pub capabilities: Option<FileCapabilities>,
}

/// The attribute `security.capability`, linux/capability.h `struct vfs_cap_data`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct FileCapabilities {
    pub permitted: u64,
    pub inheritable: u64,
    pub effective: bool,
}

impl FileCapabilities {
    /// Reads the attribute's value; `None` for a form the kernel would refuse.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(value.get(at * 4..at * 4 + 4)?.try_into().ok()?));
        let magic = word(0)?;
        let length = match magic >> 24 {
            1 => 12,
            2 => 20,
            3 => 24,
            _ => return None,
        };
        if value.len() != length {
            return None;
        }
        let high = |at| if magic >> 24 == 1 { Some(0) } else { word(at) };
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        Some(Self {
            permitted: pair(word(1)?, high(3)?),
            inheritable: pair(word(2)?, high(4)?),
            effective: magic & 1 != 0,
        })
    }
}

/// All credentials that were ever taken on, each once, by number. Number 0 is the container's root.
#[derive(Debug)]
pub struct Known {
    list: Vec<Credentials>,
    numbers: HashMap<Credentials, u32>,
}

impl Known {
    /// Only `root` so far.
    pub fn new(root: Credentials) -> Self {
        Self { numbers: HashMap::from([(root.clone(), 0)]), list: vec![root] }
    }

    /// The credentials with this number; an unknown number is root's.
    pub fn get(&self, number: u32) -> &Credentials {
        self.list.get(number as usize).unwrap_or(&self.list[0])
    }

    /// The number of these credentials.
    pub fn number(&mut self, credentials: Credentials) -> u32 {
        if let Some(number) = self.numbers.get(&credentials) {
            return *number;
        }
        let number = self.list.len() as u32;
        self.list.push(credentials.clone());
        self.numbers.insert(credentials, number);
        number
    }

    /// Whether nobody has ever been anybody else.
    pub fn are_all_root(&self) -> bool {
        self.list.len() == 1
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const DOCKER: u64 = 0xa804_25fb;

    fn root() -> Credentials {
        Credentials::new(0, 0, vec![0], DOCKER, false)
    }

    #[test]
    fn root_that_becomes_a_user_loses_everything_and_cannot_come_back() {
        let user = root().set_uid(1000).unwrap();
        assert_eq!((user.uid, user.sets.permitted, user.sets.effective), (Ids::all(1000), 0, 0));
        assert_eq!(user.set_uid(0), Err(Errno::PERM));
        assert_eq!(user.set_groups(vec![]), Err(Errno::PERM));
    }

    #[test]
    fn an_effective_uid_put_aside_can_be_taken_up_again() {
        let aside = root().set_three_uids(KEEP, 1000, KEEP).unwrap();
        assert_eq!((aside.sets.effective, aside.sets.permitted), (0, DOCKER));
        let again = aside.set_three_uids(KEEP, 0, KEEP).unwrap();
        assert_eq!(again, root());
        // seteuid(2) of a C library is setresuid; setreuid keeps the old one in saved.
        let swapped = root().set_two_uids(1000, 0).unwrap().set_two_uids(0, 1000).unwrap();
        assert_eq!(swapped.uid, Ids { real: 0, effective: 1000, saved: 1000, fs: 1000 });
    }

    #[test]
    fn capabilities_are_kept_when_asked_for() {
        let user = root().keep_capabilities(true).set_uid(7).unwrap();
        assert_eq!((user.sets.permitted, user.sets.effective), (DOCKER, 0));
        assert!(user.set_capabilities(DOCKER, capability::CHOWN, 0).unwrap().can(capability::CHOWN));
        assert!(!user.after_exec(Program::default()).keeps_capabilities());
    }

    #[test]
    fn the_file_system_uid_switches_file_capabilities() {
        let apart = root().set_fs_uid(1000);
        assert!(!apart.can(capability::DAC_OVERRIDE) && apart.can(capability::SETUID));
        assert_eq!(apart.set_fs_uid(0), root());
        let user = root().set_uid(1000).unwrap();
        assert_eq!(user.set_fs_uid(5), user);
    }

    #[test]
    fn setuid_programs_give_and_no_new_privileges_forbids() {
        let user = root().set_uid(1000).unwrap();
        let su = Program { set_uid: Some(0), ..Program::default() };
        let raised = user.after_exec(su);
        assert_eq!(raised.uid, Ids { real: 1000, effective: 0, saved: 0, fs: 0 });
        assert_eq!(raised.sets.effective, DOCKER);
        let fixed = Credentials { no_new_privileges: true, ..user.clone() };
        assert_eq!(fixed.after_exec(su).uid, Ids::all(1000));
    }

    #[test]
    fn file_capabilities_are_bounded_and_root_needs_none() {
        let value = [0x01, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let file = FileCapabilities::parse(&value).unwrap();
        assert_eq!(file, FileCapabilities { permitted: 1 << 13, inheritable: 0, effective: true });
        let user = root().set_uid(1000).unwrap();
        let program = Program { capabilities: Some(file), ..Program::default() };
        assert_eq!(user.after_exec(program).sets.effective, 1 << 13);
        assert_eq!(root().after_exec(program).sets.effective, DOCKER);
        assert_eq!(FileCapabilities::parse(&value[..19]), None);
    }

    #[test]
    fn equal_credentials_have_one_number() {
        let mut known = Known::new(root());
        assert!(known.are_all_root());
        let number = known.number(root().set_uid(5).unwrap());
        assert_eq!(known.number(root().set_uid(5).unwrap()), number);
        assert_eq!(known.number(root()), 0);
        assert_eq!(known.get(number).uid, Ids::all(5));
    }
}
