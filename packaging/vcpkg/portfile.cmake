# Not tested. Takes cargo 1.88 and make from the machine; MONGOOSE_SOURCE is a folder with this repository.
set(SOURCE_PATH "$ENV{MONGOOSE_SOURCE}")
vcpkg_execute_required_process(
  COMMAND make lib program
  WORKING_DIRECTORY "${SOURCE_PATH}"
  LOGNAME "build-${TARGET_TRIPLET}")
vcpkg_execute_required_process(
  COMMAND make install "DESTDIR=${CURRENT_PACKAGES_DIR}" PREFIX= DOCDIR=/share/mongoose5
  WORKING_DIRECTORY "${SOURCE_PATH}"
  LOGNAME "install-${TARGET_TRIPLET}")
vcpkg_cmake_config_fixup(PACKAGE_NAME mongoose CONFIG_PATH lib/cmake/mongoose)
vcpkg_fixup_pkgconfig()
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE-MIT" "${SOURCE_PATH}/LICENSE-APACHE" "${SOURCE_PATH}/THIRD-PARTY")
