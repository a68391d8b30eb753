import java.io.StringReader;
import java.security.MessageDigest;
import javax.xml.XMLConstants;
import javax.xml.transform.stream.StreamSource;
import javax.xml.validation.Schema;
import javax.xml.validation.SchemaFactory;
import loci.common.DebugTools;
import loci.common.services.ServiceFactory;
import loci.formats.IFormatReader;
import loci.formats.ImageReader;
import loci.formats.meta.IMetadata;
import loci.formats.services.OMEXMLService;
import loci.formats.tiff.TiffParser;

/**
 * What Bio-Formats makes of files: one line a fact, "file <path>" before those of each.
 *
 * Descriptions are checked against the OME schema inside the jar: Bio-Formats' own check calls them valid where it cannot
 * reach the network.
 */
public class BioFormatsCheck {
    public static void main(String[] paths) throws Exception {
        DebugTools.setRootLevel("WARN");
        OMEXMLService service = new ServiceFactory().getInstance(OMEXMLService.class);
        Schema schema = SchemaFactory.newInstance(XMLConstants.W3C_XML_SCHEMA_NS_URI)
            .newSchema(OMEXMLService.class.getResource("/released-schema/2016-06/ome.xsd"));
        for (String path : paths) {
            System.out.println("file " + path);
            try (TiffParser parser = new TiffParser(path)) {
                schema.newValidator().validate(new StreamSource(new StringReader(parser.getComment().trim())));
                System.out.println("valid " + service.validateOMEXML(parser.getComment()));
            } catch (org.xml.sax.SAXException error) {
                System.out.println("valid false");
            }
            try (IFormatReader reader = new ImageReader()) {
                IMetadata metadata = service.createOMEXMLMetadata();
                reader.setMetadataStore(metadata);
                reader.setId(path);
                System.out.println("format " + reader.getFormat());
                System.out.println("series " + reader.getSeriesCount());
                System.out.println("size " + reader.getSizeT() + " " + reader.getSizeC() + " " + reader.getSizeZ() + " "
                    + reader.getSizeY() + " " + reader.getSizeX() + " " + metadata.getPixelsType(0));
                System.out.println("pixel " + (metadata.getPixelsPhysicalSizeX(0) == null ? "unknown"
                    : metadata.getPixelsPhysicalSizeX(0).value() + " " + metadata.getPixelsPhysicalSizeX(0).unit().getSymbol()));
                for (int t = 0; t < reader.getSizeT(); t++)
                    for (int c = 0; c < reader.getSizeC(); c++)
                        for (int z = 0; z < reader.getSizeZ(); z++) {
                            MessageDigest digest = MessageDigest.getInstance("SHA-256");
                            digest.update(reader.openBytes(reader.getIndex(z, c, t)));
                            StringBuilder text = new StringBuilder();
                            for (byte b : digest.digest()) text.append(String.format("%02x", b));
                            System.out.println("plane " + t + " " + c + " " + z + " " + text + " " + reader.isLittleEndian());
                        }
            }
        }
    }
}
